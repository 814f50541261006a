package builtin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/hozo-dev/hozo/internal/zmtp"
)

// appendParts appends parts as one event: each after its length in 4 bytes, big endian.
func appendParts(dst []byte, parts ...[]byte) []byte {
	for _, p := range parts {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(p)))
		dst = append(dst, p...)
	}
	return dst
}

var errNoParts = errors.New("the event is not made of parts, each after its length")

// splitParts reads what appendParts wrote. The parts lie in event.
func splitParts(event []byte) ([][]byte, error) {
	var parts [][]byte
	for len(event) > 0 {
		if len(event) < 4 || uint64(binary.BigEndian.Uint32(event)) > uint64(len(event)-4) {
			return nil, errNoParts
		}
		end := 4 + int(binary.BigEndian.Uint32(event))
		parts = append(parts, event[4:end:end])
		event = event[end:]
	}
	if len(parts) == 0 {
		return nil, errNoParts
	}
	return parts, nil
}

// partsOf are the parts of a message behind its first skip.
func partsOf(m *zmtp.Message, skip int) [][]byte {
	parts := make([][]byte, 0, max(m.Len()-skip, 0))
	for i := skip; i < m.Len(); i++ {
		parts = append(parts, m.Part(i))
	}
	return parts
}

// eventOf makes an event of the parts of a message. buf is for the bytes of a multipart event.
func eventOf(parts [][]byte, multipart bool, buf []byte) ([]byte, error) {
	switch {
	case multipart && len(parts) > 0:
		return appendParts(buf, parts...), nil
	case len(parts) == 1:
		return parts[0], nil
	default:
		return nil, fmt.Errorf("a message of %d parts, where multipart: true is not set", len(parts))
	}
}

// messageOf is the other way.
func messageOf(event []byte, multipart bool) ([][]byte, error) {
	if multipart {
		return splitParts(event)
	}
	return [][]byte{event}, nil
}

// maxTopic bounds what a topic adds to a subject.
const maxTopic = 128

// topicSubject is the subject below base that a topic stands for. Subjects are parts joined by dots, without blanks,
// wildcards and control characters.
func topicSubject(base string, topic []byte) (string, error) {
	bad := fmt.Errorf("the topic %.40q cannot be a part of a subject", topic)
	if len(topic) == 0 || len(topic) > maxTopic {
		return "", bad
	}
	for part := range strings.SplitSeq(string(topic), ".") {
		if part == "" || strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '*' || r == '>' || r == '\uFFFD' }) {
			return "", bad
		}
	}
	return base + "." + string(topic), nil
}
