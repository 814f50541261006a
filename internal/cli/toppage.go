package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/hozo-dev/hozo/internal/status"
)

// topPage is what hozo top shows, as text.
type topPage struct {
	top
	order    int // column to sort by, -1 none
	reverse  bool
	selected int    // row of the services, -1 none
	only     string // service that is looked at alone, or ""
	paint    painter
	width    int // 0: as wide as it gets
	height   int // lines; 0: as many as it takes
}

func (p *topPage) text() string { return strings.Join(p.lines(), "\n") + "\n" }

// lines are the head, the problems, the services and the streams. What must be seen comes first: where there are too few
// lines, streams and then services are cut, around the one that is selected.
func (p *topPage) lines() []string {
	head := p.paint.bold(p.Project) + "  " + p.Time.Local().Format("15:04:05")
	if p.Saturated != "" {
		head += "  bottleneck: " + p.paint.yellow(p.Saturated)
	}
	lines := append([]string{head}, p.problemLines()...)
	services := p.serviceRows()
	streams := p.streamLines()
	if p.height > 0 {
		room := p.height - len(lines) - 2 // two blank lines
		forServices := max(room-len(streams), room/2, 2)
		services = window(services, p.selected+1, forServices)
		streams = streams[:min(len(streams), max(room-len(services), 0))]
	}
	lines = append(append(lines, ""), services...)
	if len(streams) > 1 || p.height == 0 && len(streams) > 0 {
		lines = append(append(lines, ""), streams...)
	}
	for i, line := range lines {
		if p.width > 0 {
			lines[i] = ansi.Truncate(line, p.width, "…")
		}
	}
	if p.height > 0 && len(lines) > p.height {
		lines = lines[:p.height]
	}
	return lines
}

// window cuts rows under their head to n lines in all, so that the row with index at is among them.
func window(rows []string, at, n int) []string {
	if len(rows) <= n || n < 2 {
		return rows[:min(len(rows), max(n, 0))]
	}
	start := 1 + min(max(at-n/2, 0), len(rows)-n)
	return append([]string{rows[0]}, rows[start:start+n-1]...)
}

// problemLines are a line a problem, at most a third of the page.
func (p *topPage) problemLines() []string {
	problems := p.Problems
	if p.only != "" {
		problems = slices.DeleteFunc(slices.Clone(problems), func(one status.Problem) bool { return one.Service != p.only })
	}
	var lines []string
	for i, one := range problems {
		if p.height > 0 && i >= max(p.height/3-1, 1) {
			lines = append(lines, p.paint.red(fmt.Sprintf("and %d problems more: see hozo status", len(problems)-i)))
			break
		}
		lines = append(lines, p.paint.red("problem: ")+one.Title+p.paint.dim(" ["+one.Code+"]"))
	}
	return lines
}

// serviceRows are the services, or the one that is looked at with its instances.
func (p *topPage) serviceRows() []string {
	services := p.shown()
	rows := serviceLines(services, p.width, p.order, p.paint)
	slow := p.slow()
	for i, s := range services {
		switch line := &rows[i+1]; {
		case i == p.selected && p.only == "":
			*line = p.paint.paint("7", *line)
		case slow[s.Name]:
			*line = p.paint.yellow(*line)
		case s.Ready < s.Scale:
			*line = p.paint.red(*line)
		}
	}
	if p.only == "" || len(services) == 0 {
		return rows
	}
	table := [][]string{{"INSTANCE", "STATE", "PID", "MEMORY", "RESTARTS"}}
	for _, i := range services[0].Instances {
		table = append(table, []string{i.Name, string(i.State), fmt.Sprint(i.PID), size(i.RSSBytes), fmt.Sprint(i.Restarts)})
	}
	lines, _ := aligned(table)
	lines[0] = p.paint.bold(lines[0])
	for i, one := range services[0].Instances {
		if why := strings.TrimSpace(one.Reason + " " + one.Status); why != "" {
			lines[i+1] += "  " + p.paint.dim(why)
		}
	}
	return slices.Concat(rows, []string{""}, lines)
}

// shown are the services in their order, or the one that is looked at.
func (p *topPage) shown() []topService {
	services := ordered(p.Services, p.order, p.reverse)
	if p.only != "" {
		services = slices.DeleteFunc(services, func(s topService) bool { return s.Name != p.only })
	}
	return services
}

// slow are the services that fall behind further.
func (p *topPage) slow() map[string]bool {
	slow := map[string]bool{}
	for _, s := range p.Streams {
		for _, r := range s.Readers {
			if r.Slow {
				slow[r.Service] = true
			}
		}
	}
	return slow
}

// readersNeed is the width below which the lines of streams are but their names and readers, so that slow ones are seen.
const readersNeed = 72

func (p *topPage) streamLines() []string {
	table, readers := [][]string{{"STREAM", "FRAMES/s", "STORED", "FULL"}}, []string{""}
	for _, s := range p.Streams {
		var words []string
		ours := p.only == ""
		for _, r := range s.Readers {
			text := fmt.Sprintf("%s %d", r.Service, r.Behind)
			if r.Slow {
				text = p.paint.yellow(fmt.Sprintf("%s SLOW, grows by %.0f/s", text, r.Grows))
			}
			words = append(words, text)
			ours = ours || r.Service == p.only
		}
		if !ours && !p.writes(s.Name) {
			continue
		}
		full := "-"
		if s.Max > 0 {
			full = fmt.Sprintf("%.0f%%", 100*float64(s.Bytes)/float64(s.Max))
		}
		table = append(table, []string{s.Name, fmt.Sprintf("%6.0f", s.Frames), fmt.Sprintf("%8s", size(int64(s.Bytes))), full})
		readers = append(readers, strings.Join(words, ", "))
	}
	if p.width > 0 && p.width < readersNeed {
		for i := range table {
			table[i] = table[i][:1]
		}
	}
	lines, _ := aligned(table)
	for i, words := range readers {
		if i == 0 {
			lines[0] = p.paint.bold(lines[0] + "  READERS, FRAMES BEHIND")
		} else if words != "" {
			lines[i] += "  " + words
		}
	}
	return lines
}

// writes reports whether the service that is looked at has sent to a stream.
func (p *topPage) writes(stream string) bool {
	for _, s := range p.Services {
		if s.Name == p.only {
			return slices.ContainsFunc(s.Subjects, func(subject string) bool {
				return subject == stream || strings.HasPrefix(subject, stream+".")
			})
		}
	}
	return false
}
