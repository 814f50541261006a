// Package keeper is the parent of every process of a project. It is small on purpose: it holds what must outlive
// everything else (listening sockets, the pipes and log files of its children, their wait statuses), it does what a
// client asks on a unix socket, and it knows nothing of manifests, health or restarts. Only the node, which nobody else
// could restart, is respawned by the keeper itself.
//
// # Names and trees
//
// A process is spawned under a name as the leader of its own session, in a cgroup of its own where the host has them.
// Its tree is whatever is in that cgroup. Elsewhere it is every process that descends from it: its process group and
// session, its descendants by parent, and whatever carries its HOZO_RUN in the environment; a daemon that leaves the
// session, empties its environment and outlives every ancestor before anyone looks cannot be told apart then, and is
// ended when the keeper stops. The keeper is a child subreaper, so descendants that lose their parent become its
// children. A tree ends as one: a kill takes all of it, and when a leader exits by itself the rest of its tree is killed
// before the exited event is sent, so that a restart never doubles. See docs/decisions/0009.
//
// # What kill -9 of the keeper does
//
// Run starts its program again: the process that called it becomes the standby, and its child is the keeper. The standby
// holds a duplicate of every descriptor that must outlive the keeper, and what is known of each process, which the keeper
// leaves there before it acts. When the keeper dies the standby, as the nearest subreaper, has its children, and starts a
// keeper that goes on with them: same processes, sockets, logs and records, and exact exit statuses. When the standby
// dies the keeper becomes it, by an exec that keeps its pid and children, and starts a keeper of its own. See
// docs/decisions/0001.
//
// When both die at once, the children run on until they write to their closed log pipe. STATE/keeper.json names every
// child by pid, start time, boot id and run, written before each fork, and the project's cgroups; the next keeper of that
// state directory ends those trees before it listens or spawns, so there are never doubles. Their exit codes are lost.
//
// # Who may talk to it
//
// STATE is 0700 and keeper.sock 0600: whoever may connect is the user who started the keeper, or root. Notifications of
// services that run as the same user arrive at STATE/notify.sock. A service that runs as another user cannot enter
// STATE, so it is given an abstract socket with an unguessable name instead, opened when the first such service starts.
// On both, the kernel's word on the sender's pid decides whose datagram it is, and a stranger's is ignored.
//
// The server needs Linux (pidfd, subreaper, /proc); elsewhere New says so. The client works everywhere.
package keeper
