package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// grid is a table of figures: a line a metric, a column a contender.
type grid struct {
	metrics    []metric
	contenders []string
	cells      map[cell]sample
}

// metric is one line of a grid.
type metric struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	What string `json:"what"` // how it was measured
}

type cell struct{ metric, contender string }

func newGrid(metrics []metric, contenders ...string) *grid {
	return &grid{metrics: metrics, contenders: contenders, cells: make(map[cell]sample)}
}

// add appends the figures of one round. A metric that the grid does not list is a bug of the harness.
func (g *grid) add(contender, name string, values ...float64) {
	if !slices.ContainsFunc(g.metrics, func(m metric) bool { return m.Name == name }) {
		panic("bench: internal error: no metric " + name)
	}
	at := cell{name, contender}
	g.cells[at] = append(g.cells[at], values...)
}

func (g *grid) get(contender, name string) sample { return g.cells[cell{name, contender}] }

// quantile is the value below which the share q of the sample lies; 0 of nothing.
func (s sample) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	return s.sorted()[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

func (g *grid) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "METRIC\tUNIT")
	for _, c := range g.contenders {
		fmt.Fprint(w, "\t"+c)
	}
	fmt.Fprintln(w, "\tHOW")
	for _, m := range g.metrics {
		fmt.Fprintf(w, "%s\t%s", m.Name, m.Unit)
		for _, c := range g.contenders {
			fmt.Fprint(w, "\t"+g.get(c, m.Name).String())
		}
		fmt.Fprintln(w, "\t"+m.What)
	}
	_ = w.Flush() // a strings.Builder takes everything
}

// MarshalJSON writes a metric with the figures of each contender.
func (g *grid) MarshalJSON() ([]byte, error) {
	type line struct {
		metric
		Figures map[string]sample `json:"figures"`
	}
	lines := make([]line, 0, len(g.metrics))
	for _, m := range g.metrics {
		l := line{m, make(map[string]sample)}
		for _, c := range g.contenders {
			if s := g.get(c, m.Name); len(s) > 0 {
				l.Figures[c] = s
			}
		}
		lines = append(lines, l)
	}
	return json.Marshal(lines)
}
