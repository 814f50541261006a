package node

import (
	"fmt"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
)

// part is one message of what a frame becomes at a target.
type part struct {
	subject string
	first   wire.EventID // of its events
	data    []byte
}

// parts cuts a frame as its target stores events: by partition where the stream has a key, event by event where it has
// no frames, and else as it is. The events of one key keep their order, because they are in one part and parts are stored
// one after the other.
func (to *target) parts(f *bus.Frame, data []byte) ([]part, error) {
	switch {
	case to.service != "":
		return []part{{wire.RetrySubject(to.service, f.ID(0)), f.ID(0), data}}, nil
	case to.into.Partitions == 0 && (to.into.Frames || !f.Framed()):
		return []part{{to.subject, f.ID(0), data}}, nil
	}
	events, err := f.Events()
	if err != nil {
		return nil, fmt.Errorf("cut frame %s: %w", f.ID(0), err)
	}
	partition := func([]byte) int { return 0 }
	subjects := func(int) string { return to.subject }
	if to.into.Partitions > 0 {
		partition = bus.Partitioner(wire.Route{Stream: to.into.Name, Partitions: to.into.Partitions, Key: to.into.Key})
		subjects = func(p int) string { return wire.PartitionSubject(to.into.Name, to.subject, p) }
	}
	var all []part
	builders, at := map[int]*bus.Builder{}, map[int]int{} // by partition: its frame, and which of all it becomes
	for i, event := range events {
		p := partition(event)
		if !to.into.Frames {
			all = append(all, part{subjects(p), f.ID(i), append([]byte(nil), event...)})
			continue
		}
		if builders[p] == nil {
			builders[p], at[p] = bus.NewBuilder(wire.CodecZstd), len(all)
			all = append(all, part{subject: subjects(p), first: f.ID(i)})
		}
		builders[p].Add(event) // it fits: all of them did
	}
	for p, builder := range builders {
		all[at[p]].data = builder.Frame()
	}
	return all, nil
}
