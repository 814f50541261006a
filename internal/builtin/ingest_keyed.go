package builtin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"golang.org/x/sync/errgroup"
)

// latestReadsAtOnce bounds the questions about one producer's newest frames that are under way at once.
const latestReadsAtOnce = 16

// keyedPart is the part of a batch that makes one frame of one partition.
type keyedPart struct {
	partition int
	number    int // among all parts of the batch
	events    [][]byte
	bytes     int // with newlines
}

// partition cuts b into parts of one partition each, by partition and then in the order of the body. Like cut it is a
// function of its arguments alone.
func (st *ingestStream) partition(b *batch) []keyedPart {
	open := make([][]keyedPart, st.route.Partitions)
	for _, whole := range b.parts {
		b.eachEvent(whole, func(event []byte) {
			p := st.partitionOf(event)
			size := len(event) + 1
			if n := len(open[p]); n == 0 || open[p][n-1].bytes+size > bus.TargetFrameBytes || len(open[p][n-1].events) >= bus.MaxFrameEvents {
				open[p] = append(open[p], keyedPart{partition: p})
			}
			part := &open[p][len(open[p])-1]
			part.events = append(part.events, event)
			part.bytes += size
		})
	}
	parts := slices.Concat(open...)
	for i := range parts {
		parts[i].number = i
	}
	return parts
}

// keyedBatch is one request's way to store a producer's batch on a stream with a key.
//
// The parts of a partition form a chain on the producer's own subject there, as store makes one of all parts. The first
// part of the batch is stored before the others and the last one behind them: so a batch is whole when its last part is
// stored, and the next batch of the producer, which is refused before that, cannot overtake it in any partition.
type keyedBatch struct {
	in    *ingest
	st    *ingestStream
	who   producer
	parts []keyedPart
	ctx   context.Context //nolint:containedctx // of the one request that it lives for

	mu   sync.Mutex
	have []latest // newest frame of each partition
	sent bool     // this request stored a part itself
}

// storeKeyed is store for a stream with a key.
func (in *ingest) storeKeyed(ctx context.Context, st *ingestStream, who producer, b batch) (stored, error) {
	k := &keyedBatch{in: in, st: st, who: who, parts: st.partition(&b), ctx: ctx}
	for range chainTries {
		if err := k.look(); err != nil {
			return stored{}, err
		}
		s, done, err := k.settled()
		if err != nil || done {
			return s, err
		}
		if err = k.storeAll(); err == nil {
			st.keyed.put(who.id, k.have)
			end := k.have[k.parts[len(k.parts)-1].partition]
			return stored{first: end.first, last: end.seq}, nil
		}
		// Whether it was stored is not known, or somebody else stored something.
		st.keyed.drop(who.id)
		if fault.Code(err) != bus.CodeWrongSequence {
			return stored{}, err
		}
	}
	return stored{}, &fault.Error{Code: bus.CodeWrongSequence, Where: st.subject + ".in." + who.id, What: "others keep storing under the same producer"}
}

// look finds the producer's newest frame of each partition: in memory, where it fits what the batch is, or in the stream.
func (k *keyedBatch) look() error {
	if have, ok := k.st.keyed.get(k.who.id); ok {
		// A batch between may be half stored by another process.
		if at := newest(have).batch; at <= k.who.batch && k.who.batch <= at+1 {
			k.have = slices.Clone(have)
			return nil
		}
	}
	have := make([]latest, k.st.route.Partitions)
	group, ctx := errgroup.WithContext(k.ctx)
	group.SetLimit(latestReadsAtOnce)
	for p := range have {
		group.Go(func() (err error) {
			have[p], err = k.in.readLatest(ctx, k.st, k.subject(p))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	k.have = have
	return nil
}

func (k *keyedBatch) subject(p int) string {
	return wire.PartitionSubject(k.st.route.Stream, k.st.subject+".in."+k.who.id, p)
}

// newest returns the frame that comes last in the newest batch.
func newest(have []latest) latest {
	return slices.MaxFunc(have, func(a, b latest) int { return cmp.Or(cmp.Compare(a.batch, b.batch), cmp.Compare(a.part, b.part)) })
}

// settled says whether there is nothing left to store, or why nothing may be stored.
func (k *keyedBatch) settled() (s stored, done bool, err error) {
	last := newest(k.have)
	switch {
	case last.batch > k.who.batch:
		return stored{duplicate: true}, true, nil // where it is, nobody remembers
	case last.batch == 0:
		return stored{}, false, nil
	case last.batch < k.who.batch && !last.whole():
		return stored{}, false, refuse(http.StatusConflict, "ingest/batch-unfinished",
			fmt.Sprintf("batch %d is not stored in all its partitions", last.batch),
			"send batch "+strconv.FormatUint(last.batch, 10)+" again first, or use another "+wire.HTTPProducer)
	case last.batch < k.who.batch:
		return stored{}, false, nil
	}
	for p, have := range k.have {
		if have.batch != k.who.batch {
			continue
		}
		if have.parts != len(k.parts) || k.parts[have.part].partition != p {
			return stored{}, false, refuse(http.StatusConflict, "ingest/batch-changed",
				fmt.Sprintf("batch %d was sent before with other content", k.who.batch), "number every batch anew, and repeat it with the same bytes")
		}
	}
	if last.whole() {
		return stored{first: last.first, last: last.seq, duplicate: !k.sent}, true, nil
	}
	return stored{}, false, nil
}

// storeAll stores what is missing: the first part, then each partition's, then the last part.
func (k *keyedBatch) storeAll() error {
	if err := k.storePart(k.parts[0], 0); err != nil {
		return err
	}
	first := k.have[k.parts[0].partition].first
	end := len(k.parts) - 1
	var group errgroup.Group
	for from := 0; from < end; {
		to := from + 1
		for to < end && k.parts[to].partition == k.parts[from].partition {
			to++
		}
		chain := k.parts[from:to]
		from = to
		group.Go(func() error {
			for _, part := range chain {
				if err := k.storePart(part, first); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return k.storePart(k.parts[end], first)
}

// storePart stores a part behind the newest frame of its partition, unless it is there.
func (k *keyedBatch) storePart(part keyedPart, first uint64) error {
	k.mu.Lock()
	have := k.have[part.partition]
	k.mu.Unlock()
	if have.batch == k.who.batch && have.part >= part.number {
		return nil
	}
	have.first = first
	next, err := k.in.storeFrame(k.ctx, k.st, k.subject(part.partition), have, latest{batch: k.who.batch, part: part.number, parts: len(k.parts)},
		k.who, part.events, part.bytes)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.have[part.partition], k.sent = next, true
	k.mu.Unlock()
	return nil
}
