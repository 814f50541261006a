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

// payload returns the compressed lines of a frame, valid until the next call for the same folder.
func (t *Target) payload(to *folder, b sink.Batch, f *bus.Frame) ([]byte, error) {
	codec, stored := f.Stored()
	if t.copied(b, f) {
		if codec == wire.CodecZstd {
			return stored, nil
		}
		to.encoded = t.encoder.EncodeAll(stored, to.encoded[:0])
		return to.encoded, nil
	}
	to.lines = to.lines[:0]
	for i := range f.Len() {
		if b.Skips(f, i) {
			continue
		}
		line, err := lineOf(f, i)
		if err != nil { // misfits names these, so nobody gets here with one
			return nil, fmt.Errorf("write event %s: %w", f.ID(i), err)
		}
		to.lines = append(append(to.lines, line...), '\n')
	}
	if len(to.lines) == 0 {
		return nil, nil
	}
	to.encoded = t.encoder.EncodeAll(to.lines, to.encoded[:0])
	return to.encoded, nil
}

// copied reports whether a frame's stored payload is lines that go into the file as they are, compressed on the way
// when they are not.
func (t *Target) copied(b sink.Batch, f *bus.Frame) bool {
	codec, _ := f.Stored()
	return f.Framed() && (codec == wire.CodecZstd || codec == wire.CodecNone) && b.Whole(f) && !t.split(f)
}

// misfits finds the events of a frame that cannot be one line, or cannot be read at all.
func (t *Target) misfits(b sink.Batch, f *bus.Frame) []sink.Poison {
	if t.copied(b, f) {
		return nil
	}
	var poison []sink.Poison
	for i := range f.Len() {
		if b.Skips(f, i) {
			continue
		}
		if _, err := lineOf(f, i); err != nil {
			poison = append(poison, sink.Poison{ID: f.ID(i), Err: err})
		}
	}
	return poison
}

func lineOf(f *bus.Frame, i int) ([]byte, error) {
	event, err := f.Event(i)
	if err != nil {
		return nil, err
	}
	return oneLine(event)
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
