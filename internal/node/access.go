package node

import (
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

// Explanation says what a service, or a foreign client, may do on the bus and which lines of the manifest say so.
type Explanation struct {
	Service  string      `json:"service"`
	Client   bool        `json:"client,omitempty"` // it is a client of the manifest and no service
	Declared string      `json:"declared"`         // "hozo.yaml:12"
	Rights   []LineRight `json:"rights"`
	Subject  string      `json:"subject,omitempty"` // when one was asked for
	Verdicts []Verdict   `json:"verdicts,omitempty"`
}

// LineRight is a right with the line that gives it; empty for what every instance may.
type LineRight struct {
	broker.Right
	Line string `json:"line,omitempty"`
}

// Verdict says whether a service may do something with a subject.
type Verdict struct {
	Action  broker.Action `json:"action"`
	Allowed bool          `json:"allowed"`
	By      []LineRight   `json:"by,omitempty"`
	Fix     string        `json:"fix,omitempty"` // of what is not allowed
}

// Explain says what a client, or instance 1 of a service, may do by m; the other instances differ only in the names of their
// own inbox and reports. With a subject it says whether, and if not what would have to be written.
func Explain(m *manifest.Manifest, service, subject string) (Explanation, error) {
	e := Explanation{Service: service, Rights: []LineRight{}, Subject: subject}
	var (
		g       wire.Grant
		all     []broker.Right
		section = "services"
	)
	i := slices.IndexFunc(m.Services, func(s manifest.Service) bool { return s.Name == service })
	at := slices.IndexFunc(m.Clients, func(c manifest.Client) bool { return c.Name == service })
	switch {
	case i >= 0:
		g = wiringOf(m, m.Services[i], 1, streamsOf(m))
		all = broker.RightsOf(g)
	case at >= 0:
		e.Client, section = true, "clients"
		g = clientWiring(m, m.Clients[at])
		g.Declared = m.Place("clients", service)
		all = broker.ClientRightsOf(g)
	default:
		return e, unknownService(m, service)
	}
	e.Declared = g.Declared
	broker.SortRights(all)
	for _, r := range slices.Compact(all) {
		line := ""
		if r.Key != "" {
			line = m.Place(section, service, r.Key, r.Item)
		}
		e.Rights = append(e.Rights, LineRight{r, line})
	}
	if subject == "" {
		return e, nil
	}
	for _, action := range []broker.Action{broker.Publish, broker.Subscribe} {
		v := Verdict{Action: action}
		for _, r := range e.Rights {
			if r.Action == action && wire.Covers(r.Subject, subject) {
				v.By = append(v.By, r)
			}
		}
		if v.Allowed = len(v.By) > 0; !v.Allowed {
			v.Fix = strings.Replace(fixOf(m, g, action, subject), "under services.", "under "+section+".", 1)
		}
		e.Verdicts = append(e.Verdicts, v)
	}
	return e, nil
}

// reads reports whether g consumes what is stored on subject.
func reads(g wire.Grant, subject string) bool {
	return slices.ContainsFunc(g.Consumes, func(s wire.Source) bool {
		patterns := s.Subjects
		if len(patterns) == 0 {
			patterns = wire.StreamSubjects(s.Stream)
		}
		return slices.ContainsFunc(patterns, func(p string) bool { return wire.Covers(p, subject) })
	})
}

// fixOf says which line would allow an action on a subject.
func fixOf(m *manifest.Manifest, g wire.Grant, action broker.Action, subject string) string {
	first, _, _ := strings.Cut(subject, ".")
	stored := slices.ContainsFunc(m.Streams, func(s manifest.Stream) bool {
		return slices.ContainsFunc(wire.StreamSubjects(s.Name), func(p string) bool { return wire.Covers(p, subject) })
	})
	live := slices.ContainsFunc(m.Live, func(p string) bool { return wire.Covers(p, subject) })
	served := slices.ContainsFunc(m.Services, func(s manifest.Service) bool { return slices.Contains(s.Serves, subject) })
	kind, isTask := taskKind(m, subject)
	switch {
	case isTask && action == broker.Publish:
		return g.Fix("enqueues", kind)
	case strings.HasPrefix(first, "$") || strings.HasPrefix(first, "_") || first == "hozo":
		return "nothing: no line of a manifest gives this, it is the platform's or another service's own"
	case live && action == broker.Subscribe:
		return g.Fix("watches", subject)
	case (stored || live) && action == broker.Publish:
		return g.Fix("publishes", subject)
	case stored && reads(g, subject):
		return "nothing: what a stream stores is not listened to but consumed, which it does already"
	case stored:
		return "nothing: what a stream stores is not listened to but consumed; " + g.Fix("consumes", subject)
	case served && action == broker.Publish:
		return g.Fix("calls", subject)
	case action == broker.Publish:
		return "declare what stores it, streams: { " + subject + ": {} }, and " + g.Fix("publishes", subject)
	default:
		return "to answer requests on it " + g.Fix("serves", subject)
	}
}
