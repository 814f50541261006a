// Package task runs slow work outside the flow of events: typed, durable tasks that wait in a queue until a worker has
// done them.
//
//	var Thumbnail = task.NewKind[Image]("image.thumbnail", task.Config{})
//
//	h, err := Thumbnail.Enqueue(ctx, conn, Image{Path: "a.png"})   // from an HTTP handler: stored when it returns
//	err := Thumbnail.EnqueueFrom(out, Image{Path: "a.png"})        // from a stage: stored before its event is acknowledged
//	h, err := Thumbnail.Enqueue(ctx, conn, img, task.In(time.Hour), task.Unique(img.Path), task.WithPriority(task.Low))
//
//	worker := task.NewWorker(conn, Thumbnail, func(ctx context.Context, t task.Task[Image]) error { … }, task.WorkerConfig{})
//
// [Kind.EnqueueTx] enqueues with a transaction of a PostgreSQL database: the task is there if and only if the transaction's
// rows are. It needs a table, [CreateOutbox], and a [Relay].
//
//	id, err := Thumbnail.EnqueueTx(ctx, tx, Image{Path: "a.png"})            // tx is an *sql.Tx
//	id, err := Thumbnail.EnqueueTx(ctx, task.Pgx(tx), Image{Path: "a.png"})  // tx is a pgx.Tx
//
// A kind whose tasks have a result is made by [NewResultKind], and its handle waits for the result. [NewBatchWorker] hands
// many tasks to one call.
//
// # Delivery
//
// A task is run at least once: until its handler has returned nil and the broker knows. A worker that dies, hangs or is cut
// off loses its tasks to others after about five seconds; one that works is left alone, however long it takes. So a
// handler must be harmless when it is run twice; [Task].ID is the same every time and is what to remember a done task by.
// With Keep in its [Config] a kind records how each task ended before the task leaves the queue, at most once for each:
// a worker that was stopped and comes back too late can neither overwrite the result nor have the task run again.
//
// An error has the task run again later, after Backoff, twice as long after each failure up to MaxBackoff. It waits in the
// broker and holds up nothing. A task whose handler fails for the last of its Attempts, or that returns [Reject], or whose
// worker has died with it Crashes times, is a dead letter: it is stored in hozo.dlq, once, with why, and leaves the queue.
// [Snooze] has it run again without an attempt spent.
//
// # Workflows and steps
//
// A [Flow] is tasks that wait for each other: [Then] hands results on, [Group] joins, [OnFailure] is a branch, [FlowHandle] waits
// for the end and cancels. A task that ends has the next ones begin before it leaves the queue, each once. [Step] keeps what
// a part of a task has made, so that a later attempt goes on behind it.
//
// # Limits
//
// Tasks of one kind and priority are started in the order in which they were stored, but several run at once and failed
// ones come later: no order may be relied on. A queue holds a million tasks unless its max says otherwise; beyond,
// enqueuing fails with task/queue-full. Decision 0018 says what each guarantee costs and what is left after a crash.
package task
