// Package plan says what has to be done to get from what runs to what is wanted. It is pure: it reads no file, no clock
// and no process, so a plan can be printed, tested and compared before anything happens.
package plan

import (
	"cmp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Spec is everything that the supervisor needs to know of one instance. Paths are absolute and addresses resolved.
//
// Each field is either cold, a change of it needs a new process ([Spec.Hash]), or hot, a change of it takes effect
// while the process runs on ([Spec.HotHash]).
type Spec struct {
	Name    string   // of the instance: "classify.1"
	Service string   // "classify"
	Argv    []string // Argv[0] is an absolute path
	Env     []string // KEY=value; the order of different keys has no meaning
	Dir     string   // working directory

	UID    *uint32 // nil keeps the keeper's
	GID    *uint32 // nil keeps the keeper's
	Groups []uint32

	Binary string            // digest of the program's content; empty: not looked at
	Wiring map[string]string // digests of what its grant allows, by the manifest's key: "publishes"

	Listen []Listen // sockets that the process inherits, in LISTEN_FDS order
	Notify bool     // set NOTIFY_SOCKET, whether or not Health waits for READY=1

	// Watchdog is how often the process promises to send WATCHDOG=1, from ready on; 0: never. One that misses it is
	// aborted and started again.
	Watchdog time.Duration

	Health   *Health // hot; nil means ready as soon as it runs
	Liveness *Health // hot; nil: Health alone decides. Neither Notify nor Log.
	Restart  Restart // hot
	Stop     Stop    // hot
	Needs    []Need  // hot: looked at before each start
	Log      Log     // hot; its Path takes effect at the next start
	Limits   Limits  // hot
	Rolling  Rolling // hot: looked at when it changes or is restarted

	// Node holds settings of the service that the node acts on, by the manifest's key: "scale.max". They are hot and mean
	// nothing to the supervisor; they are here because whatever the manifest says takes part in the difference.
	Node map[string]string

	Schedule  *Schedule // hot; nil means it is started when it is wanted
	Hooks     []Hook    // hot: looked at when their moment comes; at most one of each moment
	Essential bool      // hot: when it ends for good everything is to stop
}

// OtherName is the second name that processes of an instance take: one that is to replace another starts beside it. No
// instance is called so: names in a manifest hold no plus.
func OtherName(instance string) string { return instance + "+" }

// InstanceOf names the instance of a process of either name.
func InstanceOf(process string) string { return strings.TrimSuffix(process, "+") }

// Listen is a socket that is held for a service, whatever happens to its instances.
type Listen struct {
	Name    string // within the service: "http"
	Network string // tcp or unix
	Address string // "127.0.0.1:8080"; port 0 takes a free one
}

// Socket is the name under which the keeper holds the listener: "ingest.http".
func (s Spec) Socket(l Listen) string { return s.Service + "." + l.Name }

// Health is how an instance shows that it can work. Exactly one of HTTP, TCP, Exec, GRPC, Log and Notify is set.
//
// An address that equals the Address of one of the Spec's listeners stands for what that listener is bound to, so port
// 0 works. Instances that share an inherited socket are probed through it: whichever accepts answers.
//
// As Health of a Spec, failures make the instance unready; as Liveness, they make it count as crashed. Without a
// Liveness an instance that stays unready three times as long again counts as crashed, too.
type Health struct {
	HTTP    string   // full URL, good on 2xx; its host is ignored when Unix is set
	Unix    string   // path of the unix socket that HTTP or GRPC is asked over
	TCP     string   // host:port, good when it accepts
	Exec    []string // argv, argv[0] absolute; good on exit status 0. Runs as the instance's user, in its folder and environment.
	GRPC    string   // host:port of a grpc.health.v1 server without TLS, good on SERVING; ignored when Unix is set
	Service string   // what GRPC is asked about; empty: the whole server
	Log     string   // regular expression: good, for the life of the process, once a line of its output matches
	Notify  bool     // good on READY=1

	Interval  time.Duration // between probes; default 1s. Until the first success they come faster.
	Timeout   time.Duration // of one probe; default 1s
	Grace     time.Duration // from start to ready, then it counts as crashed; for Liveness: failures before count only after a success; default 30s
	Failures  int           // failures in a row that count; default 3
	Successes int           // successes in a row that make it ready; default 1
}

func (h *Health) withDefaults() *Health {
	if h == nil {
		return nil
	}
	c := *h
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.Timeout = cmp.Or(c.Timeout, time.Second)
	c.Grace = cmp.Or(c.Grace, 30*time.Second)
	c.Failures = cmp.Or(c.Failures, 3)
	c.Successes = cmp.Or(c.Successes, 1)
	return &c
}

// The restart policies.
const (
	Always    = "always"
	OnFailure = "on-failure"
	Never     = "never"
)

// What comes once the budget of restarts is spent.
const (
	Slow = "slow" // try again every RetryAfter
	Fail = "fail" // stay down until a person starts it
)

// Restart is what happens when an instance ends by itself. Delays are never shorter than they say, and up to a fifth
// longer, so that instances that fell together do not rise together.
type Restart struct {
	Policy string        // Always (default), OnFailure or Never
	Delay  time.Duration // before a restart; doubles each time; default 100ms. The first one comes at once after a run of ten times as long
	Max    time.Duration // most it grows to; default 30s
	Reset  time.Duration // time up after which the delay starts over; default 10s

	// Budget is how many starts within Window the delays above are good for, those of instances that got ready too.
	// Default 10: the delays by default add up to 51s by then, longer than it takes to restart whatever is needed.
	Budget     int
	Window     time.Duration // default 5m: a program that falls once in half a minute spends it, one that falls now and then does not
	Then       string        // Slow (default: nobody has to be awake when what it needs is back) or Fail
	RetryAfter time.Duration // between two starts when slow; default 1m
}

// Stop is how an instance is asked to end.
type Stop struct {
	Signal syscall.Signal // default SIGTERM
	Grace  time.Duration  // then its whole tree is killed; default 10s
}

// Rolling is how the instances of a service are replaced when they change or are restarted: a few at a time, each few when
// those before them can work.
type Rolling struct {
	// Surge is how many new processes may run beside the old ones. The old one of an instance is asked to end when the
	// new one can work, and stays when it does not get there. 0 ends the old one first.
	Surge          int
	MaxUnavailable int           // with Surge 0, how many instances may be away at once; default 1
	Timeout        time.Duration // from start to ready of a new process beside an old one; default Health.Grace, or 30s
}

// Width is how many instances are replaced at the same time.
func (r Rolling) Width() int { return max(1, cmp.Or(r.Surge, r.MaxUnavailable)) }

// The conditions of a Need.
const (
	Ready     = "ready"     // every instance is ready
	Started   = "started"   // every instance has been started, and runs or has exited with status 0
	Completed = "completed" // every instance has exited with status 0
)

// Need is a service that must be there before the instance starts.
type Need struct {
	Service   string
	Condition string // Ready (default), Started or Completed
	Restart   bool   // start again once that service has been, and is as Condition says again
}

// The policies of a Schedule.
const (
	Skip    = "skip"     // Overlap, Missed: the tick is passed over (default)
	Queue   = "queue"    // Overlap: it runs once the run before has ended; at most one waits
	Allow   = "allow"    // Overlap: it runs beside the run before
	RunOnce = "run_once" // Missed: the newest of the ticks that passed is run late
)

// Schedule says when an instance is started. Exactly one of Cron and Every is set; see internal/schedule.
type Schedule struct {
	Cron    string
	Every   time.Duration
	Zone    string        // of Cron; empty means the host's
	Overlap string        // Skip (default), Queue or Allow
	Missed  string        // Skip (default) or RunOnce
	Jitter  time.Duration // most that a run begins after its tick
}

// The moments of a Hook.
const (
	BeforeStart = "before_start"
	AfterReady  = "after_ready"
	BeforeStop  = "before_stop"
	AfterStop   = "after_stop"
)

// Hook is a program that is run at a moment of an instance's life, in its surroundings.
type Hook struct {
	Moment  string
	Argv    []string      // Argv[0] is an absolute path
	Timeout time.Duration // then its tree is killed; default 30s
}

// Log bounds the log of an instance.
type Log struct {
	Path     string
	MaxBytes int64         // rotate beyond; 0 means never
	Keep     int           // rotated files kept
	Age      time.Duration // rotate when the first byte of the file is as old; 0 means never
	Compress bool          // rotated files
	Full     string        // when it cannot be written: Drop (default) or Block
}

// What happens to output when the log cannot be written.
const (
	Drop  = "drop"  // it is counted and dropped
	Block = "block" // the process waits
)

// Limits bound an instance; what is zero or nil is not bounded. The first four hold for its whole tree, the others for
// each of its processes. A limit of a resource is the soft and the hard one, math.MaxUint64 is none.
type Limits struct {
	Memory     int64   // bytes
	MemoryHigh int64   // bytes
	CPU        float64 // cores
	PIDs       int64

	Nofile  *uint64
	NProc   *uint64
	Core    *uint64 // bytes
	FSize   *uint64 // bytes
	Stack   *uint64 // bytes
	Memlock *uint64 // bytes
	AS      *uint64 // bytes

	Nice        *int
	OOMScoreAdj *int
}

// WithDefaults returns a copy with the defaults filled in; it shares no Health, Schedule, Hooks or Needs with s.
func (s Spec) WithDefaults() Spec {
	s.Health, s.Liveness = s.Health.withDefaults(), s.Liveness.withDefaults()
	s.Restart.Policy = cmp.Or(s.Restart.Policy, Always)
	s.Restart.Delay = cmp.Or(s.Restart.Delay, 100*time.Millisecond)
	s.Restart.Max = max(cmp.Or(s.Restart.Max, 30*time.Second), s.Restart.Delay)
	s.Restart.Reset = cmp.Or(s.Restart.Reset, 10*time.Second)
	s.Restart.Budget = cmp.Or(s.Restart.Budget, 10)
	s.Restart.Window = cmp.Or(s.Restart.Window, 5*time.Minute)
	s.Restart.Then = cmp.Or(s.Restart.Then, Slow)
	s.Restart.RetryAfter = cmp.Or(s.Restart.RetryAfter, time.Minute)
	s.Rolling.MaxUnavailable = cmp.Or(s.Rolling.MaxUnavailable, 1)
	if s.Rolling.Timeout == 0 {
		s.Rolling.Timeout = 30 * time.Second
		if s.Health != nil {
			s.Rolling.Timeout = s.Health.Grace
		}
	}
	s.Stop.Signal = cmp.Or(s.Stop.Signal, syscall.SIGTERM)
	s.Stop.Grace = cmp.Or(s.Stop.Grace, 10*time.Second)
	s.Log.Full = cmp.Or(s.Log.Full, Drop)
	if s.Schedule != nil {
		sched := *s.Schedule
		sched.Overlap = cmp.Or(sched.Overlap, Skip)
		sched.Missed = cmp.Or(sched.Missed, Skip)
		s.Schedule = &sched
	}
	s.Hooks = slices.Clone(s.Hooks)
	for i := range s.Hooks {
		s.Hooks[i].Timeout = cmp.Or(s.Hooks[i].Timeout, 30*time.Second)
	}
	needs := make([]Need, len(s.Needs))
	for i, n := range s.Needs {
		n.Condition = cmp.Or(n.Condition, Ready)
		needs[i] = n
	}
	s.Needs = needs
	return s
}
