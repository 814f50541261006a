// Package task runs slow work outside the flow of events: typed, durable tasks that wait in a queue until a worker has
// done them.
//
//	var Thumbnail = task.NewKind[Image]("image.thumbnail", task.Config{})
//
//	id, err := Thumbnail.Enqueue(ctx, conn, Image{Path: "a.png"})  // from an HTTP handler: stored when it returns
//	err := Thumbnail.EnqueueFrom(out, Image{Path: "a.png"})        // from a stage: stored before its event is acknowledged
//
//	worker := task.NewWorker(conn, Thumbnail, func(ctx context.Context, t task.Task[Image]) error { … }, task.WorkerConfig{})
//
// # Delivery
//
// A task is run at least once: until its handler has returned nil and the broker has confirmed that it knows. A worker
// that dies, hangs or is cut off loses its tasks to others after about five seconds. So a handler must be harmless when
// it is run twice; [Task].ID is the same every time and is what to remember a done task by.
//
// An error has the task run again later, after Backoff, twice as long after each failure up to MaxBackoff. A task whose
// handler fails for the last of its Attempts, or that returns [Reject], is a dead letter: it is stored in hozo.dlq,
// once, with why, and leaves the queue. Tasks that wait for their next attempt keep their place among the 4096 that one
// kind may have in hand: when so many fail at once, fresh ones wait until some are done or dead.
//
// # Limits
//
// Tasks of one kind are started in the order in which they were stored, but several run at once and failed ones come
// later: no order may be relied on. All tasks share the stream hozo.task (1 GiB); beyond, enqueuing fails with
// bus/stream-full.
package task
