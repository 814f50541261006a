//go:build linux

package supervisord

import "bytes"

var ansiBegin = []byte("\x1b[")

// ansiEnds are the letters that Supervisor takes for the end of an escape sequence.
const ansiEnds = "HfABCDRsuJKhlpm"

// stripANSI returns data without its escape sequences. One that is cut off at the end of data is taken out as far as it
// goes; its rest, in the next piece, stays.
func stripANSI(data []byte) []byte {
	if !bytes.Contains(data, ansiBegin) {
		return data
	}
	out := make([]byte, 0, len(data))
	for {
		n := bytes.Index(data, ansiBegin)
		if n < 0 {
			return append(out, data...)
		}
		out = append(out, data[:n]...)
		data = data[n+1:] // after ESC: the bracket is not an end
		end := bytes.IndexAny(data, ansiEnds)
		if end < 0 {
			return out
		}
		data = data[end+1:]
	}
}
