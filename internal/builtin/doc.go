// Package builtin is the services that Hozo brings along: ingest takes events over HTTP, route sends each to the subject
// that its content calls for, sink writes them into a database or files, push sends events and tasks to HTTP endpoints. They are programs like the user's own, made of
// the public packages, under the same grants.
//
// # The ingest protocol
//
// POST /v1/ingest, or /v1/ingest/SUBJECT when the service publishes to several, with one JSON document a line and
// Content-Type application/x-ndjson (application/jsonl and application/json mean the same). Content-Encoding may be
// gzip or zstd. The answer is
//
//	200 {"stream":"events.raw","first_seq":17,"last_seq":19,"accepted":900,"rejected":[],"rejected_total":0,"duplicate":false}
//
// once every accepted event is stored as durably as the stream promises. Lines that are not UTF-8, not JSON or too long
// are named in rejected (the first hundred) and their neighbours land. Blank lines count as nothing. A request that is
// refused for its content has stored nothing.
//
//	400  the encoding is broken, the body is cut off, or every line is bad: do not send it again
//	404, 405, 409, 413, 415  say what is wrong with the request: do not send it again
//	429, 503  with Retry-After: send the same again later
//
// With the headers Producer-Id and Batch-Seq a batch is stored exactly once, however often and to whichever process it
// is sent. The producer numbers its batches upwards from 1, sends a batch again with the same bytes until it is
// answered 200, 400 or 413, and only then sends the next. A repeat is answered with duplicate: true. This holds as long
// as the stream keeps the producer's newest batch; a producer that falls silent for longer than the stream's keep is
// forgotten.
//
// Without the headers a request that ended in 503, or in no answer, may be stored in part, and sending it again stores
// that part twice.
//
// # One event
//
// POST /v1/publish/SUBJECT stores the body as one event, which must be one JSON document; newlines in it are taken out.
// With the header Idempotency-Key a repeat within the stream's dedupe window is stored once and answered with
// duplicate: true. The answers are those of ingest.
//
// # Tasks
//
// POST /v1/tasks/KIND stores the body as the arguments of a task, GET /v1/tasks/KIND/ID says what has become of it, DELETE
// cancels it. docs/CLIENTS.md has the options, and how push does tasks.
package builtin
