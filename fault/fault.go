// Package fault is how every part of Hozo says that something is wrong: what, where, how to fix it, and a stable code.
//
// An Error is built where the knowledge is and rendered once, by whoever talks to a person: the command line, the
// console and the log show the same words. Packages return Errors like any other error; [As] and [Code] find them in a
// wrapped chain.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says whose mistake a fault is; the command line turns it into its exit status.
type Kind int

const (
	// Failure is anything that went wrong while doing what was asked (exit status 1).
	Failure Kind = iota
	// Misuse is input that cannot be acted on: a flag, a manifest, a malformed file (exit status 2).
	Misuse
)

// Error is a fault that a person can act on. The zero Kind is Failure.
type Error struct {
	Code   string // stable, room/what-is-wrong: "manifest/unknown-key"
	Kind   Kind
	What   string // lower case, no period: `service "mail" has no command`
	Where  string // file:line:col, field, subject, address; empty when What says it
	Source string // lines of the input around Where, rendered as they are; empty when there are none
	Fix    string // the next thing to do: `add run: ./mail`
	Err    error  // the cause, or nil
}

// Error gives one line: what, where and the cause.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Where != "" {
		b.WriteString(e.Where + ": ")
	}
	b.WriteString(e.What)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// As finds the first *Error in the chain of err.
func As(err error) (*Error, bool) {
	e, ok := errors.AsType[*Error](err)
	return e, ok
}

// Code returns the code of the first *Error in the chain of err, or "".
func Code(err error) string {
	if e, ok := As(err); ok {
		return e.Code
	}
	return ""
}

// Render writes err for a person, over several lines; joined errors are rendered one after the other.
//
//	error: service "mail" has no command [manifest/no-command]
//	  at:  hozo.yaml:14:1
//	  fix: add run: ./mail
func Render(err error) string {
	var b strings.Builder
	for _, one := range Flatten(err) {
		render(&b, one)
	}
	return b.String()
}

// Flatten returns the leaves of a tree made with errors.Join, in order; any other error is its own only leaf. Words that
// a wrapper put before a joined error stand before each of its leaves. The cause of an Error is not looked into.
func Flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, Flatten(one)...)
		}
		return all
	}
	wrapper, ok := err.(interface{ Unwrap() error })
	if _, isFault := err.(*Error); isFault || !ok {
		return []error{err}
	}
	inner := wrapper.Unwrap()
	leaves := Flatten(inner)
	if len(leaves) < 2 {
		return []error{err}
	}
	if prefix, found := strings.CutSuffix(err.Error(), inner.Error()); found {
		for i, leaf := range leaves {
			leaves[i] = fmt.Errorf("%s%w", prefix, leaf)
		}
	}
	return leaves
}

func render(b *strings.Builder, err error) {
	e, ok := As(err)
	if !ok {
		fmt.Fprintf(b, "error: %s\n", err)
		return
	}
	what := e.What
	if e.Err != nil {
		what += ": " + e.Err.Error()
	}
	// A wrapper's own words stand before the fault's, so that "open store: ..." is not lost.
	if prefix, found := strings.CutSuffix(err.Error(), e.Error()); found && prefix != "" {
		what = prefix + what
	}
	fmt.Fprintf(b, "error: %s", what)
	if e.Code != "" {
		fmt.Fprintf(b, " [%s]", e.Code)
	}
	b.WriteByte('\n')
	if e.Where != "" {
		fmt.Fprintf(b, "  at:  %s\n", e.Where)
	}
	if e.Source != "" {
		for line := range strings.Lines(e.Source) {
			b.WriteString("       " + strings.TrimRight(line, "\n") + "\n")
		}
	}
	if e.Fix != "" {
		fmt.Fprintf(b, "  fix: %s\n", e.Fix)
	}
}

// ExitCode is the process exit status for err: 0 for nil, 2 when any fault in it is Misuse, else 1.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	for _, one := range Flatten(err) {
		if e, ok := As(one); ok && e.Kind == Misuse {
			return 2
		}
	}
	return 1
}
