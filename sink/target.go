package sink

import (
	"context"
	"errors"
	"fmt"

	"github.com/hozo-dev/hozo/wire"
)

// Target is a place that events are written to. Each source is written by one Sink, and Sinks of several sources share
// a Target, so its methods must be safe for concurrent use.
type Target interface {
	// Watermark claims source for this writer and returns the sequence up to which the source is durable here, 0 when
	// nothing is. It is called once, before the first Write of the source.
	Watermark(ctx context.Context, source string) (uint64, error)

	// Write takes a batch and returns the source's watermark. Rows and watermark become durable in one act, so that no
	// crash separates them; a target that gathers rows may do it later and return an older watermark until then. Frames
	// that Write has taken before are skipped. After an error the same batch is written again: none of it may have been
	// taken, or what was taken must be recognised. A *RowError names events that can never be written; nothing of the
	// batch was taken then.
	Write(ctx context.Context, b Batch) (watermark uint64, err error)

	// Flush makes everything that Write has taken of source durable and returns the source's watermark.
	Flush(ctx context.Context, source string) (watermark uint64, err error)

	// Close releases the target. What was taken and not flushed is given up; it is read again from the stream.
	Close() error
}

// ErrFenced is what a Target returns when another writer has taken the source over. It ends the Sink.
var ErrFenced = errors.New("another writer has taken over this source")

// ErrLost is what a Target returns when rows that it had taken and not yet made durable are gone. The Sink begins again at
// the watermark.
var ErrLost = errors.New("rows that were taken are lost before they were durable")

// Poison is one event that a target can never take.
type Poison struct {
	ID  wire.EventID // where the batch's frame stores it
	Err error        // why; a fault's code becomes the code of the parked event
}

// RowError says which events of a batch can never be written.
type RowError struct{ Rows []Poison }

// Error names the first event and the number of the others.
func (e *RowError) Error() string {
	switch len(e.Rows) {
	case 0:
		return "no event is at fault"
	case 1:
		return fmt.Sprintf("event %s cannot be written: %v", e.Rows[0].ID, e.Rows[0].Err)
	default:
		return fmt.Sprintf("event %s and %d more cannot be written: %v", e.Rows[0].ID, len(e.Rows)-1, e.Rows[0].Err)
	}
}
