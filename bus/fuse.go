package bus

import "context"

// Step turns one event into any number of values: the first part of a Fuse.
type Step[A, B any] func(ctx context.Context, e Event[A], emit func(B) error) error

// Fuse makes one handler of two steps of a sequence: each value that first emits goes to second at once, in the same
// process, without a stream between them. The two are one piece of work: they are tried again, parked and acknowledged
// together, and second sees the name of first's event. Where the steps should scale or fail apart, put a topic between
// two Stages instead.
func Fuse[A, B any](first Step[A, B], second HandlerFunc[B]) HandlerFunc[A] {
	return func(ctx context.Context, e Event[A], out *Out) error {
		return first(ctx, e, func(v B) error { return second(ctx, with(e, v), out) })
	}
}

// Chain makes one step of two; Fuse ends the chain.
func Chain[A, B, C any](first Step[A, B], second Step[B, C]) Step[A, C] {
	return func(ctx context.Context, e Event[A], emit func(C) error) error {
		return first(ctx, e, func(v B) error { return second(ctx, with(e, v), emit) })
	}
}

// with is e with another value.
func with[A, B any](e Event[A], v B) Event[B] {
	return Event[B]{
		ID: e.ID, Subject: e.Subject, Time: e.Time, Attempt: e.Attempt, Returns: e.Returns, Data: e.Data, Value: v, header: e.header,
	}
}
