package file

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/wire"
)

// payload returns the compressed lines of a frame.
func (t *Target) payload(b sink.Batch, f *bus.Frame) ([]byte, error) {
	codec, stored := f.Stored()
	if f.Framed() && b.Whole(f) && !t.split(f) {
		if codec == wire.CodecZstd {
			return stored, nil
		}
		if codec == wire.CodecNone {
			return t.encoder.EncodeAll(stored, nil), nil
		}
	}
	lines := make([]byte, 0, f.RawBytes()+1)
	for i := range f.Len() {
		if b.Skips(f, i) {
			continue
		}
		event, err := f.Event(i)
		if err != nil {
			return nil, fmt.Errorf("read frame %s:%d: %w", f.Stream, f.Seq, err)
		}
		if line, err := oneLine(event); err == nil { // misfits has refused the others
			lines = append(append(lines, line...), '\n')
		}
	}
	if len(lines) == 0 {
		return nil, nil
	}
	return t.encoder.EncodeAll(lines, nil), nil
}

// misfits finds the events of a frame that cannot be one line.
func (t *Target) misfits(b sink.Batch, f *bus.Frame) []sink.Poison {
	if f.Framed() && !t.split(f) {
		return nil
	}
	var poison []sink.Poison
	for i := range f.Len() {
		if b.Skips(f, i) {
			continue
		}
		event, err := f.Event(i)
		if err == nil {
			_, err = oneLine(event)
		}
		if err != nil {
			poison = append(poison, sink.Poison{ID: f.ID(i), Err: err})
		}
	}
	return poison
}

// split reports whether the target is to look for events with newlines and the frame holds one: then it has more
// newlines than events.
func (t *Target) split(f *bus.Frame) bool {
	if !t.cfg.CheckLines {
		return false
	}
	for i := range f.Len() {
		if event, err := f.Event(i); err != nil || bytes.IndexByte(event, '\n') >= 0 {
			return true
		}
	}
	return false
}

// oneLine returns the event without newlines. JSON has them between its tokens only, where they mean nothing.
func oneLine(event []byte) ([]byte, error) {
	if bytes.IndexByte(event, '\n') < 0 {
		return event, nil
	}
	var line bytes.Buffer
	if err := json.Compact(&line, event); err != nil {
		return nil, &fault.Error{
			Code: "file/newline", What: "the event holds a newline and is no JSON, so it cannot be one line of a file", Err: err,
			Fix: "publish one JSON document an event",
		}
	}
	return line.Bytes(), nil
}
