// Package sink writes streams outward: into a database, into files. A [Target] is the place; a [Sink] is the loop that
// reads one stream in order, hands it to the target in batches and tells the broker how far it got.
//
// # Exactly once
//
// The target keeps, for every source, the sequence up to which the source is in it: its watermark, made durable in one
// act with the rows. At its start a Sink asks for the watermark and reads on from there, so a crash at any step repeats
// nothing and leaves nothing out; what the broker believes about the Sink's position does not matter. Two writers of
// one source cannot both go on: a target gives the source to the later one and refuses the earlier with [ErrFenced], or
// refuses the later one while the earlier is alive.
//
// # Failure
//
// A target that fails is tried again for ever, with growing pauses; meanwhile the backlog waits in the stream and
// nobody else is held up. An event that the target can never take is named by a [RowError], parked alone, and the batch
// is written without it.
package sink
