package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// sample is a figure measured in several rounds.
type sample []float64

func (s sample) sorted() sample { return slices.Sorted(slices.Values(s)) }

// median is the middle value, or the mean of the two middle ones; 0 of nothing.
func (s sample) median() float64 {
	if len(s) == 0 {
		return 0
	}
	all, half := s.sorted(), len(s)/2
	if len(s)%2 == 1 {
		return all[half]
	}
	return (all[half-1] + all[half]) / 2
}

// String gives the median and the spread: "26.1 (24.9..27.0)".
func (s sample) String() string {
	if len(s) == 0 {
		return "-"
	}
	all := s.sorted()
	return fmt.Sprintf("%s (%s..%s)", figure(s.median()), figure(all[0]), figure(all[len(all)-1]))
}

// figure prints three digits or all before the point.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// over divides pairwise: the two figures of one round share what the machine did in it.
func (s sample) over(other sample) sample {
	pairs := make(sample, 0, len(s))
	for i := range min(len(s), len(other)) {
		pairs = append(pairs, s[i]/other[i])
	}
	return pairs
}

// order is the sequence in which n contenders run in a round: A B C, B C A, C A B, and so on, so that none always follows
// the same one.
func order(n, round int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = (round + i) % n
	}
	return all
}

// report is what an area found.
type report struct {
	Area   string   `json:"area"`
	About  []string `json:"about"` // what was sent and how
	Rows   []row    `json:"rows,omitempty"`
	Grid   *grid    `json:"grid,omitempty"`
	Roofs  []roof   `json:"roofs,omitempty"`
	Ratios []ratio  `json:"ratios"`
	Checks []string `json:"checks"`          // what the checker found right
	Wrong  []string `json:"wrong,omitempty"` // what it found wrong
}

// row is one contender.
type row struct {
	Name       string            `json:"name"`
	Durability string            `json:"durability"`        // what an acknowledgement and a stored event survive
	MBps       sample            `json:"mb_per_s"`          // of 10^6 event bytes, from the first request to the last event stored
	Events     sample            `json:"events_per_s"`      //
	Accept     sample            `json:"accept_mb_per_s"`   // until the last request was answered
	CPU        sample            `json:"cpu_s_per_gb"`      // user and system, of the contender's whole process tree
	Generator  sample            `json:"load_cpu_s_per_gb"` // of this process meanwhile
	Others     sample            `json:"others_cpu_share"`  // of one core, used meanwhile by the contenders that had nothing to do
	Programs   map[string]sample `json:"cpu_s_per_gb_by_program"`
}

// ratio compares ours with a peer or a figure; higher is better.
type ratio struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Bar   float64 `json:"bar"`
}

// programs lists what used at least a hundredth of the processor time, most first.
func (r row) programs() string {
	names := slices.SortedFunc(maps.Keys(r.Programs), func(a, b string) int {
		return cmp.Compare(r.Programs[b].median(), r.Programs[a].median())
	})
	var all []string
	for _, name := range names {
		if used := r.Programs[name].median(); used >= r.CPU.median()/100 {
			all = append(all, name+" "+figure(used))
		}
	}
	return strings.Join(all, ", ")
}

func (r report) String() string {
	var b strings.Builder
	for _, line := range r.About {
		fmt.Fprintf(&b, "%-8s %s\n", r.Area, line)
	}
	b.WriteString("\nmedian (min..max)\n")
	if r.Grid != nil {
		r.Grid.print(&b)
	} else {
		r.printRows(&b)
	}
	b.WriteByte('\n')
	for _, line := range r.Checks {
		fmt.Fprintf(&b, "ok     %s\n", line)
	}
	for _, line := range r.Wrong {
		fmt.Fprintf(&b, "WRONG  %s\n", line)
	}
	b.WriteByte('\n')
	for _, ratio := range r.Ratios {
		fmt.Fprintf(&b, "RATIO %s %.2f bar %g\n", ratio.Name, ratio.Value, ratio.Bar)
	}
	return b.String()
}

// printRows prints the contenders that move events, the roofs that they are under, and where their time goes.
func (r report) printRows(b *strings.Builder) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CONTENDER\tMB/s STORED\tEVENTS/s\tMB/s ACCEPTED\tCPU-s/GB\tLOAD CPU-s/GB\tIDLE OTHERS\tSURVIVES")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%.0f%%\t%s\n", row.Name, row.MBps, row.Events, row.Accept, row.CPU, row.Generator,
			100*row.Others.median(), row.Durability)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "ROOF\tMB/s\tWHAT")
	for _, roof := range r.Roofs {
		fmt.Fprintf(w, "%s\t%s\t%s\n", roof.Name, figure(roof.MBps), roof.What)
	}
	fmt.Fprintln(w)
	_ = w.Flush() // a strings.Builder takes everything
	for _, row := range r.Rows {
		fmt.Fprintf(b, "CPU-s/GB of %s: %s\n", row.Name, row.programs())
	}
}
