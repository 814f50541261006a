// Command demo runs the firehose example from an empty state, feeds it, shows what happens and gives a final account:
// what was accepted, what is stored where, what was parked, lost or stored twice. It exits with 0 only if that balances.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	var d demo
	flag.StringVar(&d.hozo, "hozo", "bin/hozo", "the hozo binary")
	flag.StringVar(&d.dir, "dir", "examples/firehose", "the example's folder")
	flag.StringVar(&d.events, "events", "", "a file or address of GH Archive events (.json.gz); default: generated ones of the same shape")
	flag.IntVar(&d.count, "count", 50_000, "how many events to generate")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := d.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

type demo struct {
	hozo, dir, events string
	count             int
}

// drainPatience bounds the wait for the last event: the slowest stage of a two-core machine stores 20 MB/s.
const drainPatience = 10 * time.Minute

func (d demo) run(ctx context.Context) (err error) {
	for _, path := range []*string{&d.hozo, &d.dir} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if err := d.reset(ctx); err != nil {
		return err
	}
	input, expected, err := d.input()
	if err != nil {
		return err
	}
	defer func() {
		// The platform is stopped however the demo ends, Ctrl-C included.
		downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, d.command(downCtx, "down"))
	}()
	fmt.Println("starting the firehose: ingest → classify ×2 → enrich → route → archive (SQLite) + lake (files), report, api")
	if err := d.command(ctx, "up", "-d"); err != nil {
		return err
	}
	fmt.Println()

	view := newView(d)
	result, err := view.feed(ctx, input)
	if err != nil {
		return err
	}
	account, err := d.account(ctx, view, result, expected)
	if err != nil {
		return err
	}
	account.print(os.Stdout)
	return account.check()
}

// reset stops a running example and removes what an earlier demo stored.
func (d demo) reset(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(d.dir, ".hozo")); err == nil {
		if err := d.command(ctx, "down"); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(filepath.Join(d.dir, "data")), os.RemoveAll(filepath.Join(d.dir, ".hozo")), os.MkdirAll(filepath.Join(d.dir, "data"), 0o755))
}
