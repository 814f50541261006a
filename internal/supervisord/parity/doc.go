// Package parity asks whether hozo supervisord is like Supervisor: it has tests alone. Each scenario is told once and
// played twice, to Debian's supervisord and to ours, with Debian's own supervisorctl, XML-RPC client and listeners; what
// came back is compared word for word, without pids, times and folders.
package parity
