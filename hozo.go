// Package hozo is what the main function of a service calls. A service is a list of parts, and Main runs them:
//
//	func main() {
//		hozo.Main(
//			hozo.Stage(raw, classify),        // handle the events of a stream
//			hozo.Collect(parts, join, three), // gather the events of a key
//			hozo.Handle(thumbnail, shrink),   // do queued tasks
//			hozo.Serve(price, quote),         // answer requests of other services
//			hozo.HTTP(mux),                   // serve HTTP on the socket that the platform holds
//		)
//	}
//
// Main takes the wiring and the credential from the platform's environment, connects to the bus, starts the parts and
// tells the platform when all of them are ready. A program whose parts need no bus runs without a platform, too:
// PORT=8080 go run . is enough for HTTP.
//
// # Order
//
// Parts of [Func] start first and in their order, because handlers lean on them; then stages, tasks and calls; HTTP
// last, each part after the one before is ready. When a part ends, for whatever reason, the service stops.
//
// # Stop
//
// SIGTERM or SIGINT stops the service as one unit with one deadline: /readyz turns 503; HTTP, stages, tasks and calls
// take nothing new and finish together what they have in hand; then the Func parts stop in reverse order; then the last
// report is sent and the bus is closed. What cannot finish is given back to the broker, never lost. A second signal
// ends the process at once with status 1.
package hozo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// Main runs the service that parts make until it is told to stop, and ends the process: with status 0 after an
// asked-for stop, 2 when the program was given something that it cannot act on, and else 1, after it has written to
// standard error what is wrong and how to fix it.
func Main(parts ...Part) {
	os.Exit(run(parts)) // deferred functions of main are not meant to run: Func is the place for them
}

// run is Main without the exit.
func run(parts []Part) int {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	done := make(chan struct{})
	defer close(done)
	signals := make(chan os.Signal, 2) // the one that stops and the one that ends: neither may get lost
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	watch.Go(func() {
		select {
		case got := <-signals:
			stop(fmt.Errorf("received %v", got))
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(1) // the user does not want to wait
		case <-done:
		}
	})
	err := Run(ctx, parts...)
	if err != nil {
		fmt.Fprint(os.Stderr, fault.Render(err))
	}
	return fault.ExitCode(err)
}

// Run runs the service that parts make until ctx ends, a part ends or one fails. It returns nil after an asked-for
// stop, else the errors of all parts that failed, each under its part's name.
//
// Faults of its own are hozo/no-parts, hozo/two-configs, and hozo/drain-timeout when a part did not return within the
// grace; then its goroutines are still running and the process should end.
func Run(ctx context.Context, parts ...Part) error {
	if len(parts) == 0 {
		return &fault.Error{
			Code: "hozo/no-parts", Kind: fault.Misuse, What: "the service has no parts", Fix: "give hozo.Main something to run",
		}
	}
	s := &Service{log: newLogger()}
	if err := s.connect(ctx, parts); err != nil {
		return stoppedMeanwhile(ctx, err)
	}
	c, err := s.assemble(ctx, parts)
	if err != nil {
		return errors.Join(err, s.close(ctx))
	}
	err = c.run(ctx)
	return errors.Join(err, s.close(ctx))
}

// stoppedMeanwhile hides that what was waited for did not come, when the wait was ended by an asked-for stop.
func stoppedMeanwhile(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// newLogger writes to standard error, where the platform picks it up.
func newLogger() *slog.Logger {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("service", serviceName())
	if instance := os.Getenv(wire.EnvInstance); instance != "" {
		log = log.With("instance", instance)
	}
	if kind := task.IsolatedKind(); kind != "" {
		log = log.With("isolated", kind)
	}
	return log
}

// serviceName is the platform's name for the service, or without one the program's.
func serviceName() string {
	return cmp.Or(os.Getenv(wire.EnvService), filepath.Base(os.Args[0]))
}
