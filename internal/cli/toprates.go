package cli

import (
	"maps"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// top is what flowed between two looks.
type top struct {
	Project   string           `json:"project"`
	Time      time.Time        `json:"time"`
	Services  []topService     `json:"services"`
	Streams   []topStream      `json:"streams"`
	Saturated string           `json:"saturated,omitempty"`
	Problems  []status.Problem `json:"problems"`
}

type topService struct {
	Name   string  `json:"name"`
	Ready  int     `json:"ready"`
	Scale  int     `json:"scale"`
	In     float64 `json:"events_in_per_second"`
	Out    float64 `json:"events_out_per_second"`
	Bytes  float64 `json:"bytes_in_per_second"`
	Parked uint64  `json:"parked"`
	Behind uint64  `json:"behind"` // frames of its streams not finished, all together
	Busy   float64 `json:"busy"`
	CPU    float64 `json:"cpu"` // share of one processor
	RSS    int64   `json:"rss_bytes"`

	Instances []status.Instance `json:"-"`
	Subjects  []string          `json:"-"` // it has sent to
}

type topStream struct {
	Name    string      `json:"name"`
	Frames  float64     `json:"frames_per_second"`
	Bytes   uint64      `json:"bytes"`
	Max     int64       `json:"max_bytes"`
	Readers []topReader `json:"readers"`
}

type topReader struct {
	Service string  `json:"service"`
	Behind  uint64  `json:"behind"` // frames not finished: exact, as the broker counts
	Grows   float64 `json:"grows_per_second"`
	Slow    bool    `json:"slow"` // behind, and falling back further
}

// slowBehind is the backlog in frames from which a reader that falls back further is called slow; below it is in hand.
const slowBehind = 32

func topOf(before, now status.Snapshot) top {
	seconds := max(now.Time.Sub(before.Time).Seconds(), 0.001)
	rate := func(a, b uint64) float64 { return float64(b-min(a, b)) / seconds }
	t := top{Project: now.Project, Time: now.Time, Services: []topService{}, Streams: []topStream{}, Saturated: now.Saturated, Problems: now.Problems}
	traffic, cpu := map[string]status.Traffic{}, map[int]float64{}
	for _, s := range before.Services {
		traffic[s.Name] = s.Traffic
		for _, i := range s.Instances {
			cpu[i.PID] = i.CPU
		}
	}
	behind := map[string]uint64{}
	for _, s := range now.Streams {
		for _, c := range s.Consumers {
			behind[c.Service] += c.Lag + uint64(c.InFlight)
		}
	}
	for _, s := range now.Services {
		old := traffic[s.Name]
		one := topService{
			Name: s.Name, Scale: s.Scale, In: rate(old.EventsIn, s.Traffic.EventsIn), Out: rate(old.EventsOut, s.Traffic.EventsOut),
			Bytes: rate(old.BytesIn, s.Traffic.BytesIn), Parked: s.Traffic.Parked, Busy: s.Traffic.Busy,
			Behind: behind[s.Name], Instances: s.Instances, Subjects: slices.Sorted(maps.Keys(s.Traffic.Routes)),
		}
		for _, i := range s.Instances {
			one.RSS += i.RSSBytes
			if used, ok := cpu[i.PID]; ok {
				one.CPU += max(i.CPU-used, 0) / seconds
			}
			if i.State == status.Ready {
				one.Ready++
			}
		}
		t.Services = append(t.Services, one)
	}
	streams := map[string]status.Stream{}
	for _, s := range before.Streams {
		streams[s.Name] = s
	}
	for _, s := range now.Streams {
		old := streams[s.Name]
		one := topStream{Name: s.Name, Frames: rate(old.LastSeq, s.LastSeq), Bytes: s.Bytes, Max: s.MaxBytes, Readers: []topReader{}}
		lag := map[string]uint64{}
		for _, c := range old.Consumers {
			lag[c.Service] = c.Lag + uint64(c.InFlight)
		}
		for _, c := range s.Consumers {
			behind := c.Lag + uint64(c.InFlight)
			grows := (float64(behind) - float64(lag[c.Service])) / seconds
			one.Readers = append(one.Readers, topReader{c.Service, behind, grows, behind >= slowBehind && grows >= 0})
		}
		t.Streams = append(t.Streams, one)
	}
	return t
}
