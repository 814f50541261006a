// Package hozotest is the platform inside a plain go test: a real broker in the test's own process, wired as the manifest says,
// and services that run in it with the rights of their lines. Nothing is built, no process is started, and a test takes
// some hundred milliseconds.
//
//	func TestOrdersArePacked(t *testing.T) {
//		env := hozotest.New(t, hozotest.Config{Manifest: "../hozo.yaml"})
//		env.Run("packer", hozo.Handle(pack, packOne))
//		h, err := pack.Enqueue(t.Context(), env.Conn(), order{"tea"}, task.In(time.Hour))
//		…
//		env.Advance(time.Hour) // it is an hour later: the task has been run
//		if dead := env.DeadLetters(); len(dead) > 0 { … }
//	}
//
// [Env.Drain] waits until everything that the running services have to do is done, [Env.Advance] lets time pass for what
// waits in the broker: tasks with In or At, retries, snoozes. What has no service that runs stays where it is.
//
// # What is real, and what is not
//
// Streams, queues, acknowledgements, retries, dead letters, results, uniqueness, workflows and rights are the real ones: a missing
// line in the manifest fails here as it does there. Real time goes on beside Advance, which moves neither the
// clock of the process nor times to live (TTL, Keep, UniqueFor, Timeout), events that a stage puts aside, nor what the
// manifest schedules. There is no keeper and no node: nothing is started, restarted or killed, built-in services do not
// run, and health, hooks and limits play no part. Drain does not see requests, live events and streams that are read in the order of keys.
package hozotest
