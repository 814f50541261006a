package keeper

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/hozo-dev/hozo/fault"
)

const (
	// maxRequestBytes bounds a line that the keeper reads. Linux allows 2 MiB of argv and environment by default;
	// a service's are a few KiB.
	maxRequestBytes = 1 << 20
	// maxReplyBytes bounds a line that a client reads: maxProcesses records of maxLabelBytes, maxStatusBytes and
	// about 4 KiB of the rest come to 21 MiB.
	maxReplyBytes = 32 << 20
)

// lines returns a scanner of the lines of r, none longer than limit.
func lines(r io.Reader, limit int) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), limit)
	return s
}

// encode renders a message as one line.
func encode(message any) ([]byte, error) {
	line, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", message, err)
	}
	return append(line, '\n'), nil
}

// errorReply carries err, whose fault is kept field by field.
func errorReply(id uint64, err error) Reply {
	e, ok := fault.As(err)
	if !ok {
		return Reply{ID: id, Error: err.Error(), Code: "keeper/failed"}
	}
	what := e.What
	if e.Err != nil {
		what += ": " + e.Err.Error()
	}
	return Reply{ID: id, Error: what, Code: e.Code, Where: e.Where, Fix: e.Fix, Misuse: e.Kind == fault.Misuse}
}

// err is the error that the reply carries, or nil.
func (r Reply) err() error {
	if r.Error == "" && r.Code == "" {
		return nil
	}
	e := &fault.Error{Code: r.Code, What: r.Error, Where: r.Where, Fix: r.Fix}
	if r.Misuse {
		e.Kind = fault.Misuse
	}
	return e
}
