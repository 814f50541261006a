package wire

import "time"

// Report is what an instance says of its own work, once a second, on hozo.report.<service>.<instance>. Counters run from
// the start of the process.
type Report struct {
	Service   string            `json:"service"`
	Instance  int               `json:"instance"`
	Run       string            `json:"run"` // HOZO_RUN: counters start again with a new run
	Time      time.Time         `json:"time"`
	EventsIn  uint64            `json:"events_in"`
	BytesIn   uint64            `json:"bytes_in"`   // uncompressed event bytes
	EventsOut uint64            `json:"events_out"` // published, or stored by a sink
	BytesOut  uint64            `json:"bytes_out"`
	Parked    uint64            `json:"parked"`
	Retried   uint64            `json:"retried"`
	Failed    uint64            `json:"failed,omitempty"`   // live events whose handler returned an error
	Tasks     uint64            `json:"tasks"`              // tasks done
	Routes    map[string]uint64 `json:"routes,omitempty"`   // events out per subject
	Edges     map[string]uint64 `json:"edges,omitempty"`    // events in per EdgeKey; tasks and requests both ways
	Overflow  map[string]uint64 `json:"overflow,omitempty"` // live events dropped because a watch's buffer was full, per watched topic
	Busy      float64           `json:"busy"`               // share of the last second in which every worker was busy, 0 to 1
	InFlight  float64           `json:"in_flight"`          // HTTP requests in flight, mean over the last second
}

// EdgeKey names an edge of a service: the word of the manifest (consumes, watches, calls, serves, enqueues, handles, and
// publishes where a status has all of them together) and the stream, subject or task kind.
func EdgeKey(word, name string) string { return word + " " + name }
