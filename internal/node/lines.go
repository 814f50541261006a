package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// lines answers a request with one JSON object a line, as long as it takes. Faults come as an object of their own, since
// the status has been sent by then.
type lines struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	begun bool
}

func newLines(w http.ResponseWriter) *lines {
	return &lines{w: w, flush: http.NewResponseController(w)}
}

// send writes one line; it reports false when the caller has gone.
func (l *lines) send(v any) bool {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	return json.NewEncoder(l.w).Encode(v) == nil && l.flush.Flush() == nil
}

// end writes the last line, or err: with a status of its own when nothing was sent before.
func (l *lines) end(v any, err error) {
	switch {
	case err != nil && !l.begun:
		answer(l.w, nil, err)
	case err != nil:
		l.send(faultsOf(err))
	default:
		l.send(v)
	}
}

// readLines decodes an answer of lines and hands each to take until it returns false. It returns the faults that the
// answer ends with.
func readLines[T any](r io.Reader, take func(T) bool) error {
	for dec := json.NewDecoder(r); ; {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var faults faultReply
		if bytes.HasPrefix(raw, []byte(`{"errors":`)) && json.Unmarshal(raw, &faults) == nil && len(faults.Errors) > 0 {
			return faults.err()
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if !take(v) {
			return nil
		}
	}
}
