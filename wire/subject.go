package wire

import (
	"fmt"
	"strings"
)

// The platform's own streams and subjects. A manifest may not declare anything under "hozo.".
const (
	DeadStream  = "hozo.dlq"   // parked events and dead tasks: hozo.dlq.<service>.<JetStream name>.<sequence>.<index>
	RetryStream = "hozo.retry" // parked events on their way back to one service: hozo.retry.<service>.<JetStream name>.<sequence>.<index>

	ReportSubject = "hozo.report" // core subject of Reports: hozo.report.<service>.<instance>
	RenewSubject  = "hozo.renew"  // core subject of Renewals: hozo.renew.<user>
)

// StreamName returns the JetStream name of the stream that the manifest calls name. JetStream names hold no dots and
// manifest names hold no underscores, so the mapping is one to one.
func StreamName(name string) string { return strings.ReplaceAll(name, ".", "_") }

// StreamSubjects returns the subjects that the stream called name stores: its own name and everything below it.
func StreamSubjects(name string) []string { return []string{name, name + ".>"} }

// DeadSubject names the parked record of the event (stream, seq, index) at service. One event has one subject, so
// parking it twice is refused by the broker.
func DeadSubject(service string, id EventID) string {
	return fmt.Sprintf("%s.%s.%s.%d.%d", DeadStream, service, StreamName(id.Stream), id.Seq, id.Index)
}

// RetrySubject names the event on its way back to service.
func RetrySubject(service string, id EventID) string {
	return fmt.Sprintf("%s.%s.%s.%d.%d", RetryStream, service, StreamName(id.Stream), id.Seq, id.Index)
}

// EverySubject is where a request on the call's subject reaches every instance that serves it, and not one of them.
func EverySubject(call string) string { return "hozo.every." + call }

// Covers reports whether every subject that matches sub also matches pattern, by NATS's token rules: "*" stands for
// one token and a final ">" for one or more.
func Covers(pattern, sub string) bool {
	for more, left := true, true; more; {
		var want, have string
		want, pattern, more = strings.Cut(pattern, ".")
		if want == ">" {
			return left
		}
		if !left {
			return false
		}
		have, sub, left = strings.Cut(sub, ".")
		if have == ">" || want != "*" && want != have {
			return false
		}
		if !more {
			return !left
		}
	}
	return false
}
