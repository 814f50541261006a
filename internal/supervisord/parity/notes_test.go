package parity

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// note adds to the trace, without what differs from run to run.
func (s *side) note(format string, args ...any) {
	s.trace = append(s.trace, s.normal(fmt.Sprintf(format, args...)))
}

var varying = []struct {
	match *regexp.Regexp
	to    string
}{
	{regexp.MustCompile(`pid:\d+`), "pid:N"},
	{regexp.MustCompile(`pid \d+`), "pid N"},
	{regexp.MustCompile(`uptime (\d+ days?, )?\d+:\d\d:\d\d`), "uptime T"},
	{regexp.MustCompile(`[A-Z][a-z][a-z] \d\d \d\d:\d\d [AP]M`), "DATE"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}`), "STAMP"},
	{regexp.MustCompile(`'[^']*' \(\d+\) with`), "P with"},
	{regexp.MustCompile(`when:\d+`), "when:T"},
	{regexp.MustCompile(`(---parity-)\w+\.log`), "${1}X.log"},
	// Supervisor 4.2 leaves it out, later ones give a class that their own marshaller refuses.
	{regexp.MustCompile(`"autorestart":\w+,`), ""},
	{regexp.MustCompile(`"(pid|start|stop|now)":[1-9]\d*`), `"$1":N`},
}

// place is where in a file a warning comes from, which ours says and theirs does not.
var place = regexp.MustCompile(` \(\S+:\d+\)$`)

func (s *side) normal(text string) string {
	text = strings.ReplaceAll(text, s.dir, "$DIR")
	for _, v := range varying {
		text = v.match.ReplaceAllString(text, v.to)
	}
	return text
}

// sameOrder sorts neighbours that say the same of different processes: a daemon tells of them as they get there, and two
// that stop at once get there in either order.
func sameOrder(output string) string {
	lines := strings.SplitAfter(output, "\n")
	said := func(line string) string {
		_, what, _ := strings.Cut(line, ": ")
		return what
	}
	for i := 0; i < len(lines); {
		j := i + 1
		for j < len(lines) && said(lines[i]) != "" && said(lines[j]) == said(lines[i]) {
			j++
		}
		slices.Sort(lines[i:j])
		i = j
	}
	return strings.Join(lines, "")
}

func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// recorded waits until the recorder has been told of all that has happened: events are told in order.
func (s *side) recorded() {
	s.t.Helper()
	s.until("recorder", "RUNNING")
	s.marks++
	mark := fmt.Sprintf("mark-%d.", s.marks)
	s.quiet("supervisor.sendRemoteCommEvent", mark, "")
	s.untilFile("events", mark)
}

// events notes what a listener recorded, process by process: daemons may tell of two processes in either order.
func (s *side) events(file string, of ...string) {
	s.t.Helper()
	if file == "events" {
		s.recorded()
	}
	for _, name := range of {
		for line := range strings.Lines(s.read(file)) {
			if strings.Contains(line, "processname:"+name+" ") || strings.Contains(line, "groupname:"+name+`\n`) {
				_, event, _ := strings.Cut(strings.TrimSpace(line), " ")
				s.note("event %s", event)
			}
		}
	}
}

// log notes the lines of the main log that contain a text, text after text: daemons may log of two processes in either
// order.
func (s *side) log(texts ...string) {
	for _, text := range texts {
		for line := range strings.Lines(s.read("main.log")) {
			if strings.Contains(line, text) {
				s.note("log %s", place.ReplaceAllString(strings.TrimSpace(line), ""))
			}
		}
	}
}

// stderrOf is what the AUTO log of a process's stderr holds.
func (s *side) stderrOf(process string) string {
	s.t.Helper()
	found, err := filepath.Glob(s.path(process + "-stderr---*.log"))
	if err != nil || len(found) == 0 {
		s.t.Errorf("%s has no stderr log: %v", process, err)
		return ""
	}
	return s.read(filepath.Base(found[0]))
}

// record notes what one listener was told, in its order.
func (s *side) record(file string) {
	s.t.Helper()
	for line := range strings.Lines(s.read(file)) {
		_, event, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.note("%s was told %s", file, event)
	}
}
