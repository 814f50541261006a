package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/wire"
)

// wiring finds the stream of everything that a service publishes and consumes.
func (c *checker) wiring(s *Service) {
	for i := range s.Publishes {
		to := &s.Publishes[i]
		if to.Live = c.isLive(to.Subject); !to.Live {
			to.Stream = c.stream(s, "publishes", to.Subject)
		}
	}
	c.watches(s)
	for i := range s.Consumes {
		from := &s.Consumes[i]
		if from.Subject == "" {
			c.add(c.value("services", s.Name, "consumes"), "no-subject", fmt.Sprintf("service %q consumes something without a subject", s.Name), "add subject: NAME OF A STREAM")
			continue
		}
		from.Stream = c.stream(s, "consumes", from.Subject)
		c.ordered(s, i)
		for _, other := range s.Consumes[:i] {
			if from.Stream != "" && from.Stream == other.Stream && (reads(other, *from) || reads(*from, other)) {
				c.add(c.item(from.Subject, section(s), s.Name, "consumes"), "consumed-twice",
					fmt.Sprintf("%s %q would get events of %s twice: it consumes %s and %s", noun(s), s.Name, from.Stream, other.Subject, from.Subject), "keep the wider one")
			}
		}
	}
}

// reads reports whether a's events hold all of b's. A stream's bare name means everything in it.
func reads(a, b Source) bool {
	return a.Subject == a.Stream || b.Subject != b.Stream && wire.Covers(a.Subject, b.Subject)
}

// stream returns the one stream that stores a subject, or "" after reporting that there is none.
func (c *checker) stream(s *Service, list, subject string) string {
	touched, within := c.storing(subject)
	if within {
		return touched[0]
	}
	at := c.item(subject, section(s), s.Name, list)
	if list == "consumes" && c.isLive(subject) {
		c.add(at, "live-consumed", fmt.Sprintf("%s %q consumes %s, which is live: nothing stores it", noun(s), s.Name, subject), fmt.Sprintf("write watches: [%s]", subject))
		return ""
	}
	if len(touched) > 0 {
		what := fmt.Sprintf("%s %q %s %s, of which stream %s stores only a part", noun(s), s.Name, list, subject, touched[0])
		if len(touched) > 1 {
			what = fmt.Sprintf("%s %q %s %s, which is in %d streams: %s", noun(s), s.Name, list, subject, len(touched), strings.Join(touched, ", "))
		}
		c.add(at, "many-streams", what, "name each stream, like "+touched[0])
		return ""
	}
	names := make([]string, 0, len(c.m.Streams))
	for _, stream := range c.m.Streams {
		names = append(names, stream.Name)
	}
	fix := fmt.Sprintf("declare it: streams: { %s: {} }", strings.TrimSuffix(strings.TrimSuffix(subject, ".>"), ".*"))
	if near := closest(subject, names); near != "" {
		fix = fmt.Sprintf("did you mean %q?", near)
	}
	c.add(at, "no-stream", fmt.Sprintf("%s %q %s %s, but no stream stores it", noun(s), s.Name, list, subject), fix)
	return ""
}

// tasks finds kinds that are enqueued and that nobody handles. The other way round is no mistake: the command line can
// enqueue as well.
func (c *checker) tasks() {
	var handled []string
	for _, s := range c.m.Services {
		handled = append(handled, s.Handles...)
		if c.undecoded(&s, "handles", len(s.Handles)) {
			return // the kind that seems to be missing may be the one that could not be read
		}
	}
	for _, s := range c.members() {
		for _, kind := range s.Enqueues {
			if !slices.Contains(handled, kind) {
				c.add(c.item(kind, section(s), s.Name, "enqueues"), "unhandled-task", fmt.Sprintf("%s %q enqueues tasks of kind %s, which no service handles", noun(s), s.Name, kind),
					orServe(kind, handled, "handles"))
			}
		}
	}
}

// requests finds calls that nobody serves, subjects that two serve, and requests that a stream would store.
func (c *checker) requests() {
	servers := map[string]string{}
	var served []string
	undecoded := false
	for _, s := range c.members() {
		undecoded = undecoded || c.undecoded(s, "serves", len(s.Serves))
		for _, subject := range s.Serves {
			at := c.item(subject, section(s), s.Name, "serves")
			c.requestSubject(at, subject)
			if first, twice := servers[subject]; twice {
				c.add(at, "served-twice", fmt.Sprintf("requests on %s are served by %q already", subject, first), "let one service answer them")
				continue
			}
			servers[subject] = s.Name
			served = append(served, subject)
		}
	}
	for _, s := range c.members() {
		for _, subject := range s.Calls {
			at := c.item(subject, section(s), s.Name, "calls")
			if _, ok := servers[subject]; !ok && !undecoded {
				c.add(at, "unserved-call", fmt.Sprintf("%s %q calls %s, which no service serves", noun(s), s.Name, subject), orServe(subject, served, "serves"))
			}
		}
	}
}

func (c *checker) requestSubject(at position, subject string) {
	if reserved(subject) {
		c.add(at, "reserved-name", fmt.Sprintf("the subject %q is under hozo, which is the platform's own", subject), "choose another first part")
	}
	if streams, within := c.storing(subject); within {
		c.add(at, "request-in-stream", fmt.Sprintf("requests on %s would be stored by stream %s, which answers in the service's place", subject, streams[0]), "choose a subject outside the streams")
	}
	if i := slices.IndexFunc(c.m.Live, func(p string) bool { return overlap(p, subject) }); i >= 0 {
		c.add(at, "request-in-live", fmt.Sprintf("requests on %s would reach everybody who watches %s", subject, c.m.Live[i]), "choose a subject outside the live patterns")
	}
}

func orServe(word string, known []string, list string) string {
	if near := closest(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return fmt.Sprintf("add %s: [%s] to the service that does", list, word)
}
