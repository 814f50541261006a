package builtin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// chainTries is how often a batch is looked at anew because somebody else stored on the producer's subject. Two
// processes that send one batch of many parts meet once a part at most, and each time one of them gets further.
const chainTries = 64

// producer is who sent a batch, and which.
type producer struct {
	id    string // empty when the request names none
	batch uint64
}

// producerPattern allows what a subject can hold as one token.
var producerPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func producerOf(r *http.Request, st *ingestStream) (producer, *refusal) {
	id, number := r.Header.Get(wire.HTTPProducer), r.Header.Get(wire.HTTPBatch)
	if id == "" && number == "" {
		return producer{}, nil
	}
	bad := func(what string) (producer, *refusal) {
		return producer{}, refuse(http.StatusBadRequest, "ingest/producer", what,
			"send both "+wire.HTTPProducer+" (letters, digits, _ and -, up to 64) and "+wire.HTTPBatch+" (from 1 upwards), or neither")
	}
	if !producerPattern.MatchString(id) {
		return bad(fmt.Sprintf("%s is %q", wire.HTTPProducer, id))
	}
	batch, err := strconv.ParseUint(number, 10, 64)
	if err != nil || batch == 0 {
		return bad(fmt.Sprintf("%s is %q", wire.HTTPBatch, number))
	}
	if !st.route.Frames {
		return producer{}, refuse(http.StatusBadRequest, "ingest/producer", "stream "+st.route.Stream+" has no frames, so it cannot recognise batches",
			"send without "+wire.HTTPProducer+", or set frames: true on the stream")
	}
	return producer{id, batch}, nil
}

// latest is the newest frame on a producer's subject. The zero latest is that of a producer who has stored nothing.
type latest struct {
	seq   uint64 // of the frame
	first uint64 // of the first frame of its batch
	batch uint64
	part  int // from 0
	parts int
}

// whole reports whether the batch was stored to its end.
func (l latest) whole() bool { return l.part+1 == l.parts }

// store stores a producer's batch exactly once. The parts form a chain on the producer's own subject: each is stored
// only if the one before it is the subject's last message, so whoever sends the batch, and however often, every part
// is stored by one of them.
func (in *ingest) store(ctx context.Context, st *ingestStream, who producer, b batch) (stored, error) {
	if st.route.Partitions > 0 {
		return in.storeKeyed(ctx, st, who, b)
	}
	subject := st.subject + ".in." + who.id
	sent := false // this request stored a part itself
	for range chainTries {
		have, err := in.latestOf(ctx, st, subject)
		if err != nil {
			return stored{}, err
		}
		next, err := nextPart(have, who.batch, len(b.parts))
		if err != nil {
			return stored{}, err
		}
		if next == len(b.parts) {
			if have.batch > who.batch {
				return stored{duplicate: true}, nil // where it is, nobody remembers
			}
			return stored{first: have.first, last: have.seq, duplicate: !sent}, nil
		}
		for i := next; i < len(b.parts); i++ {
			have, err = in.storePart(ctx, st, subject, have, who, b, i)
			if err != nil {
				break
			}
			sent = true
			st.latest.put(subject, have)
		}
		if err == nil {
			return stored{first: have.first, last: have.seq}, nil
		}
		// Whether it was stored is not known, or somebody else stored something.
		st.latest.drop(subject)
		if fault.Code(err) != bus.CodeWrongSequence {
			return stored{}, err
		}
	}
	return stored{}, &fault.Error{Code: bus.CodeWrongSequence, Where: subject, What: "others keep storing under the same producer"}
}

// nextPart says which part of the batch is to be stored next, given the newest frame of its producer; parts when there
// is nothing left to store.
func nextPart(have latest, batch uint64, parts int) (int, error) {
	switch {
	case have.batch > batch:
		return parts, nil
	case have.batch < batch && have.batch != 0 && !have.whole():
		return 0, refuse(http.StatusConflict, "ingest/batch-unfinished",
			fmt.Sprintf("batch %d is stored up to part %d of %d", have.batch, have.part+1, have.parts),
			"send batch "+strconv.FormatUint(have.batch, 10)+" again first, or use another "+wire.HTTPProducer)
	case have.batch < batch:
		return 0, nil
	case have.parts != parts:
		return 0, refuse(http.StatusConflict, "ingest/batch-changed",
			fmt.Sprintf("batch %d was sent before with other content", batch), "number every batch anew, and repeat it with the same bytes")
	default:
		return have.part + 1, nil
	}
}

// storePart stores part i of the batch behind the frame have and returns it as the newest.
func (in *ingest) storePart(ctx context.Context, st *ingestStream, subject string, have latest, who producer, b batch, i int) (latest, error) {
	p := b.parts[i]
	events := make([][]byte, 0, p.events)
	b.eachEvent(p, func(event []byte) { events = append(events, event) })
	return in.storeFrame(ctx, st, subject, have, latest{batch: who.batch, part: i, parts: len(b.parts)}, who, events, p.end-p.start)
}

// storeFrame stores events, which are so many bytes with their newlines, as the part next behind the frame have, whose
// first is that of the batch, and returns it as the newest.
func (in *ingest) storeFrame(
	ctx context.Context, st *ingestStream, subject string, have, next latest, who producer, events [][]byte, bytes int,
) (latest, error) {
	builder := st.builders.Get().(*bus.Builder)
	defer st.builders.Put(builder)
	defer builder.Reset()
	for _, event := range events {
		builder.Add(event)
	}
	header := nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(have.seq, 10)},
		wire.HeaderProducer:                 {who.id},
	}
	batchHeader := fmt.Sprintf("%d/%d/%d", next.batch, next.part, next.parts)
	if next.part > 0 {
		batchHeader += "/" + strconv.FormatUint(have.first, 10)
	}
	header[wire.HeaderBatch] = []string{batchHeader}
	bus.PutTrace(ctx, header, len(events))
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	ack, err := in.conn.PublishFrame(ctx, subject, header, builder.Frame())
	if err != nil {
		return have, err
	}
	// Counted under the subject that the manifest knows: producers are many.
	in.conn.Counters().AddOut(st.subject, uint64(len(events)), uint64(bytes-len(events)))
	next.seq, next.first = ack.Sequence, have.first
	if next.part == 0 {
		next.first = ack.Sequence
	}
	return next, nil
}

// latestOf returns the newest frame of a producer, from memory or from the stream.
func (in *ingest) latestOf(ctx context.Context, st *ingestStream, subject string) (latest, error) {
	if have, ok := st.latest.get(subject); ok {
		return have, nil
	}
	have, err := in.readLatest(ctx, st, subject)
	if err == nil {
		st.latest.put(subject, have)
	}
	return have, err
}

// readLatest returns the newest frame of a subject from the stream.
func (in *ingest) readLatest(ctx context.Context, st *ingestStream, subject string) (latest, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	link := in.conn.Link()
	have, err := in.fetchLatest(ctx, st.route.Stream, subject)
	if err == nil && have.seq > 0 && st.route.Power {
		err = in.conn.Commit(ctx, st.route.Stream, have.seq, link) // whoever stored it may have ended before it was on disk
	}
	if err != nil {
		return latest{}, &fault.Error{Code: bus.CodeUnavailable, Where: subject, What: "the producer's newest batch cannot be read", Err: err}
	}
	return have, nil
}

// fetchLatest reads the last message of subject. It asks for it by the subject's own name, the least right that will do.
func (in *ingest) fetchLatest(ctx context.Context, stream, subject string) (latest, error) {
	api := "$JS.API.DIRECT.GET." + wire.StreamName(stream) + "." + subject
	msg, err := in.conn.NATS().RequestWithContext(ctx, api, nil)
	if err != nil {
		return latest{}, err
	}
	switch status := msg.Header.Get("Status"); status {
	case "":
	case "404":
		return latest{}, nil
	default:
		return latest{}, fmt.Errorf("the broker answers %s %s", status, msg.Header.Get("Description"))
	}
	return parseLatest(msg.Header.Get(jetstream.SequenceHeader), msg.Header.Get(wire.HeaderBatch))
}

// parseLatest reads a stored frame's sequence and its batch header, "7/0/3", or "7/1/3/1234" with the sequence of the
// batch's first frame.
func parseLatest(sequence, header string) (latest, error) {
	var l latest
	fields := strings.Split(header, "/")
	if len(fields) != 3 && len(fields) != 4 {
		return l, fmt.Errorf("%s %q is not batch/part/parts", wire.HeaderBatch, header)
	}
	var errs [5]error
	l.seq, errs[0] = strconv.ParseUint(sequence, 10, 64)
	l.batch, errs[1] = strconv.ParseUint(fields[0], 10, 64)
	l.part, errs[2] = strconv.Atoi(fields[1])
	l.parts, errs[3] = strconv.Atoi(fields[2])
	l.first = l.seq
	if len(fields) == 4 {
		l.first, errs[4] = strconv.ParseUint(fields[3], 10, 64)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return latest{}, fmt.Errorf("%s %q: %w", wire.HeaderBatch, header, err)
	}
	if l.batch == 0 || l.part < 0 || l.part >= l.parts || (l.part > 0) != (len(fields) == 4) {
		return latest{}, fmt.Errorf("%s %q does not add up", wire.HeaderBatch, header)
	}
	return l, nil
}
