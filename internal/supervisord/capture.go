//go:build linux

package supervisord

import "bytes"

var (
	captureBegin = []byte("<!--XSUPERVISOR:BEGIN-->")
	captureEnd   = []byte("<!--XSUPERVISOR:END-->")
)

// capture tells apart, in the output of one channel, what is for the log and what is for a PROCESS_COMMUNICATION event.
// A token may come in pieces: bytes that may be the beginning of one are kept until more come.
type capture struct {
	max       int               // bytes kept of one communication
	log       func(data []byte) // ordinary output
	emit      func(data []byte) // a whole communication
	capturing bool              // between the tokens
	pending   []byte            // may be the beginning of a token
	kept      []byte            // the communication so far
	inside    func(data []byte) // everything between the tokens, piece by piece; nil when nobody wants it
}

// write takes the next piece of output.
func (c *capture) write(data []byte) {
	c.pending = append(c.pending, data...)
	for {
		token := captureBegin
		if c.capturing {
			token = captureEnd
		}
		if len(c.pending) < len(token) {
			return // it may be the beginning of one
		}
		before, after, found := bytes.Cut(c.pending, token)
		if !found {
			keep := prefixAtEnd(c.pending, token)
			c.put(c.pending[:len(c.pending)-keep])
			c.pending = append(c.pending[:0], c.pending[len(c.pending)-keep:]...)
			return
		}
		c.put(before)
		c.pending = append(c.pending[:0], after...)
		if c.capturing = !c.capturing; !c.capturing {
			c.emit(c.kept)
			c.kept = nil
		}
		if len(after) == 0 {
			return
		}
	}
}

// close logs what was kept back as the possible beginning of a token. A communication that never ended is dropped.
func (c *capture) close() {
	if !c.capturing && len(c.pending) > 0 {
		c.log(c.pending)
	}
	c.pending, c.kept = nil, nil
}

// put keeps or logs what is no token. What goes beyond the bound pushes the oldest bytes out, piece by piece as it came.
func (c *capture) put(data []byte) {
	if len(data) == 0 {
		return
	}
	if !c.capturing {
		c.log(data)
		return
	}
	if c.inside != nil {
		c.inside(data)
	}
	if len(c.kept)+len(data) > c.max {
		c.kept = c.kept[min(len(data), len(c.kept)):]
	}
	c.kept = append(c.kept, data...)
}

// prefixAtEnd is how many bytes at the end of data are the beginning of token.
func prefixAtEnd(data, token []byte) int {
	for n := min(len(token)-1, len(data)); n > 0; n-- {
		if bytes.HasSuffix(data, token[:n]) {
			return n
		}
	}
	return 0
}
