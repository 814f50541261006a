//go:build linux

package supervisord

// State is the state of a process, with Supervisor's numbers.
type State int

// The states of a process.
const (
	Stopped  State = 0
	Starting State = 10
	Running  State = 20
	Backoff  State = 30
	Stopping State = 40
	Exited   State = 100
	Fatal    State = 200
	Unknown  State = 1000
)

// String is the name clients see.
func (s State) String() string {
	switch s {
	case Stopped:
		return "STOPPED"
	case Starting:
		return "STARTING"
	case Running:
		return "RUNNING"
	case Backoff:
		return "BACKOFF"
	case Stopping:
		return "STOPPING"
	case Exited:
		return "EXITED"
	case Fatal:
		return "FATAL"
	default:
		return "UNKNOWN"
	}
}

// stopped says whether nothing of the process runs and nothing will by itself, but for an EXITED that is restarted.
func (s State) stopped() bool { return s == Stopped || s == Exited || s == Fatal || s == Unknown }

// running says whether the process counts as started: starting it again is refused.
func (s State) running() bool { return s == Running || s == Backoff || s == Starting }

// signallable says whether there is a process to signal.
func (s State) signallable() bool { return s == Running || s == Starting || s == Stopping }

// Mood is the state of the daemon, with Supervisor's numbers.
type Mood int

// The states of the daemon.
const (
	MoodFatal      Mood = 2
	MoodRunning    Mood = 1
	MoodRestarting Mood = 0
	MoodShutdown   Mood = -1
)

// String is the name clients see.
func (m Mood) String() string {
	switch m {
	case MoodFatal:
		return "FATAL"
	case MoodRunning:
		return "RUNNING"
	case MoodRestarting:
		return "RESTARTING"
	default:
		return "SHUTDOWN"
	}
}

// ListenerState is where an event listener is in the exchange of events.
type ListenerState int

// The states of a listener.
const (
	ListenerReady        ListenerState = 10 // waits for an event
	ListenerBusy         ListenerState = 20 // has one
	ListenerAcknowledged ListenerState = 30 // has answered, or has just started
	ListenerUnknown      ListenerState = 40 // broke the protocol; gets no more events
)

// String is the name in the log.
func (s ListenerState) String() string {
	switch s {
	case ListenerReady:
		return "READY"
	case ListenerBusy:
		return "BUSY"
	case ListenerAcknowledged:
		return "ACKNOWLEDGED"
	default:
		return "UNKNOWN"
	}
}
