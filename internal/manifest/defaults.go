package manifest

import (
	"slices"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

const (
	maxSpan   = 100 * 365 * day        // a century: longer is a slip
	minKeep   = time.Second            // JetStream checks ages about once a second
	minLogAge = time.Second            // a file a second is more than anybody reads
	minDedupe = 100 * time.Millisecond // JetStream's least duplicate window

	defaultKeep   = 24 * time.Hour
	defaultDedupe = 10 * time.Minute
)

func newManifest() Manifest {
	return Manifest{Broker: Broker{Memory: 512 << 20}}
}

func newStream(name string) Stream {
	return Stream{
		Name: name, Keep: defaultKeep, MaxBytes: 1 << 30, Durability: DurabilityProcess, Compression: "zstd", Frames: true,
		Dedupe: defaultDedupe, Full: wire.FullBlock,
	}
}

func newService(name string) Service {
	return Service{
		Name: name, Scale: 1, Rolling: Rolling{MaxUnavailable: 1},
		Restart: Restart{Policy: "always", Delay: 100 * time.Millisecond, Max: 30 * time.Second, Reset: 10 * time.Second, Budget: 10, Window: 5 * time.Minute, Then: "slow", RetryAfter: time.Minute},
		Stop:    Stop{Signal: "TERM", Grace: 10 * time.Second},
		Log:     Log{MaxBytes: 16 << 20, Keep: 4, Full: "drop"},
	}
}

func newAutoscale() Autoscale {
	return Autoscale{Min: 1, GrowAfter: 3 * time.Second, ShrinkAfter: time.Minute}
}

// targets by default. A message is a frame of many events, and below some dozens of them is what readers have in their
// hands anyway; a task that waits for 10 s is late for whoever waits for it; an instance on 0.7 cores has room for a
// burst; a Go program serves 64 requests at once with ease.
var targets = map[string]float64{OnLag: 64, OnTaskAge: 10, OnCPU: 0.7, OnRequests: 64}

func newHealth() Health {
	return Health{Interval: time.Second, Timeout: time.Second, Grace: 30 * time.Second, Failures: 3, Successes: 1}
}

func newIngest() Ingest {
	return Ingest{MaxBody: 16 << 20, MaxLine: 1 << 20, InFlight: 128 << 20, Linger: 2 * time.Millisecond}
}

func newRouteBy() RouteBy { return RouteBy{} }

func newTarget() Target {
	return Target{Rotate: Rotate{Bytes: 64 << 20, Age: 10 * time.Second}}
}

// fill sets the defaults that depend on other values; root tells what the file has set.
func (m *Manifest) fill(root *node) {
	for i := range m.Streams {
		s := &m.Streams[i]
		if root.get("streams").get(s.Name).get("dedupe") == nil {
			s.Dedupe = min(defaultDedupe, s.Keep)
		}
		if s.Key != "" && s.Partitions == 0 {
			s.Partitions = wire.DefaultPartitions
		}
	}
	for i := range m.Services {
		s := &m.Services[i]
		if s.Dir == "" {
			s.Dir = m.Dir
		}
		if a := s.Autoscale; a != nil && a.Target == 0 {
			a.Target = targets[a.On]
		}
		if s.Builtin != "" && s.Health == nil {
			// Built-in services say themselves when they are ready.
			h := newHealth()
			h.Notify = true
			s.Health = &h
		}
		if s.Schedule != nil {
			written := root.get("services").get(s.Name).get("restart")
			if written == nil || written.kind == kindMap && written.get("policy") == nil {
				s.Restart.Policy = "never" // a run that ends has done its work
			}
		}
		if s.Builtin == "ingest" && s.Ingest == nil {
			in := newIngest()
			s.Ingest = &in
		}
		if s.To != nil && s.To.SQLite+s.To.Postgres != "" && s.To.Table == "" {
			s.To.Table = "events"
		}
		if s.Health != nil && !s.Health.asks() && s.Builtin != "" {
			s.Health.Notify = true // only its times are set
		}
		if root.get("services").get(s.Name).get("rolling").get("surge") == nil && s.surges() {
			s.Rolling.Surge = 1
		}
	}
}

// asks reports whether h says how to learn anything.
func (h *Health) asks() bool {
	return h.Notify || h.HTTP != "" || h.TCP != "" || len(h.Exec) > 0 || h.GRPC != "" || h.Log != ""
}

// surges says whether a service is replaced without a gap unless it says otherwise: when it listens on sockets that both
// processes inherit, the new one's answers can be told from the old one's, and no hooks stand between the two.
func (s *Service) surges() bool {
	if len(s.Listen) == 0 || s.Builtin == "sink" || s.publishesToAll() || s.Hooks != (Hooks{}) {
		return false
	}
	h := s.Health
	return h == nil || h.Notify || h.Log != "" || strings.HasPrefix(h.HTTP, "/") ||
		slices.ContainsFunc(s.Listen, func(l Listen) bool { return h.TCP == l.Name || h.GRPC == l.Name })
}
