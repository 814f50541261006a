// Package supervisord is a process manager that runs an unmodified supervisord.conf and speaks Supervisor's protocols,
// so that its client supervisorctl, event listeners and whatever else talks XML-RPC to it work unchanged.
//
// [New] takes the configuration that package conf has read and [Daemon.Run] runs it. One goroutine, the loop, owns every
// state: a process's, a listener's, the daemon's. Everything that happens (a signal, the end of a child, a timer, a call
// of a client) comes to it as one turn; a turn ends when no process has a transition left to make. Where Supervisor
// looks at everything once a second, the loop sleeps until there is something to do; what comes out, and in which order
// it is reported, is the same.
//
// Output does not go through the loop. Each channel of a child has a reader that writes its log file, and turns to the
// loop only when somebody listens for what it read.
//
// This daemon spawns its children itself: it is a manager of its own beside Hozo's keeper, for a host that had
// supervisord, and shares with the keeper only how children are reaped.
package supervisord
