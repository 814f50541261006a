package sink

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Defaults of Config.
const (
	DefaultBatchBytes = 4 << 20                // a batch of 16 full frames: the cost of a commit is small against it
	DefaultBatchAge   = 50 * time.Millisecond  // what a reader of the target may wait for on a quiet stream
	DefaultFlushAge   = 10 * time.Second       // a gathering target holds rows no longer
	DefaultBackoff    = 100 * time.Millisecond // between the first two tries
	DefaultMaxBackoff = 5 * time.Second        // so that a target which is back is noticed soon
	DefaultStopGrace  = 5 * time.Second        // half of the ten seconds that a service gets to stop
)

// Config tunes a Sink. The zero Config is ready for production.
type Config struct {
	BatchBytes int           // most uncompressed bytes of a batch, but at least one frame
	BatchAge   time.Duration // how long a batch waits for company after its first frame
	FlushAge   time.Duration // how long written rows may wait to become durable in a target that gathers them
	Backoff    time.Duration // pause after the first failure of the target; doubles
	MaxBackoff time.Duration // most it grows to
	StopGrace  time.Duration // how long the last write may take once the Sink is asked to stop
	Logger     *slog.Logger  // nil discards
}

func (c Config) withDefaults() Config {
	c.BatchBytes = cmp.Or(c.BatchBytes, DefaultBatchBytes)
	c.BatchAge = cmp.Or(c.BatchAge, DefaultBatchAge)
	c.FlushAge = cmp.Or(c.FlushAge, DefaultFlushAge)
	c.Backoff = cmp.Or(c.Backoff, DefaultBackoff)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, DefaultMaxBackoff)
	c.StopGrace = cmp.Or(c.StopGrace, DefaultStopGrace)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.BatchBytes < 0 {
		errs = append(errs, fmt.Errorf("BatchBytes is %d, want at least 1", c.BatchBytes))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"BatchAge", c.BatchAge}, {"FlushAge", c.FlushAge}, {"Backoff", c.Backoff}, {"MaxBackoff", c.MaxBackoff}, {"StopGrace", c.StopGrace},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %s, want more than 0", d.name, d.value))
		}
	}
	return errors.Join(errs...)
}
