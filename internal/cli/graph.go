package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

// graph is a project as what flows from where to where.
type graph struct {
	Nodes   []graphNode `json:"nodes"`
	Edges   []graphEdge `json:"edges"`
	Running bool        `json:"running"` // the counters are those of a running project
}

type graphNode struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // service, client, stream, call, task or live
}

type graphEdge struct {
	From   string  `json:"from"`
	To     string  `json:"to"`
	Kind   string  `json:"kind"`                 // publishes, consumes, watches, reaches (a live subject another), calls, serves, enqueues, handles
	Word   string  `json:"word"`                 // as written in the manifest
	Events *uint64 `json:"events,omitempty"`     // or requests, or tasks, since its service was first started
	Rate   float64 `json:"per_second,omitempty"` // of them
	Behind *uint64 `json:"behind,omitempty"`     // frames that the reader has not finished
	Seen   bool    `json:"observed"`             // something has flowed
}

func newGraph(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Print what flows from where to where, declared and observed",
		Long: `Print the topology that the manifest declares, and, when the project runs, what has been observed on each edge: events,
requests or tasks, how many a second, and how far a reader is behind. An edge on which nothing has flowed is dashed.

  hozo graph --format dot | dot -Tsvg > graph.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := o.load()
			if err != nil {
				return err
			}
			g := declaredGraph(m)
			if client, err := o.client(); err == nil {
				if s, err := client.Status(cmd.Context()); err == nil { // else it does not run: what is declared is all there is
					g.observe(s)
				}
			}
			if o.json {
				format = "json"
			}
			switch format {
			case "text":
				return o.graphText(g)
			case "json":
				return o.printJSON(g)
			case "dot":
				_, err = fmt.Fprint(o.env.Stdout, g.dot())
				return err
			case "mermaid":
				_, err = fmt.Fprint(o.env.Stdout, g.mermaid())
				return err
			}
			return misuse(cmd, fmt.Errorf("--format: %q is none of text, dot, json, mermaid", format))
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text, dot, json or mermaid")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "dot", "json", "mermaid"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return o.jsonFlag(cmd)
}

// declaredGraph is what the manifest says.
func declaredGraph(m *manifest.Manifest) *graph {
	g := &graph{Nodes: []graphNode{}, Edges: []graphEdge{}}
	seen := map[graphNode]bool{}
	node := func(kind, name string) {
		if n := (graphNode{name, kind}); !seen[n] {
			seen[n] = true
			g.Nodes = append(g.Nodes, n)
		}
	}
	for _, s := range m.Streams {
		node("stream", s.Name)
	}
	of := func(kind, name string, publishes []manifest.Route, consumes []manifest.Source, watches []string, words map[string][]string) {
		node(kind, name)
		for _, p := range publishes {
			to := p.Stream
			if to == "" {
				to = p.Subject
				node("live", to)
			}
			g.Edges = append(g.Edges, graphEdge{From: name, To: to, Kind: "publishes", Word: p.Subject})
		}
		for _, c := range consumes {
			g.Edges = append(g.Edges, graphEdge{From: c.Stream, To: name, Kind: "consumes", Word: c.Subject})
		}
		for _, w := range watches {
			node("live", w)
			g.Edges = append(g.Edges, graphEdge{From: w, To: name, Kind: "watches", Word: w})
		}
		for _, k := range [][2]string{{"calls", "call"}, {"serves", "call"}, {"enqueues", "task"}, {"handles", "task"}} {
			for _, word := range words[k[0]] {
				node(k[1], word)
				e := graphEdge{From: name, To: word, Kind: k[0], Word: word}
				if !e.outward() {
					e.From, e.To = e.To, e.From
				}
				g.Edges = append(g.Edges, e)
			}
		}
	}
	for _, s := range m.Services {
		of("service", s.Name, s.Publishes, s.Consumes, s.Watches, map[string][]string{"calls": s.Calls, "serves": s.Serves, "enqueues": s.Enqueues, "handles": s.Handles})
	}
	for _, c := range m.Clients {
		of("client", c.Name, c.Publishes, c.Consumes, c.Watches, map[string][]string{"calls": c.Calls, "serves": c.Serves, "enqueues": c.Enqueues})
	}
	g.joinLive()
	return g
}

// joinLive draws which of the live subjects that are published come to which that are watched under another name.
func (g *graph) joinLive() {
	sent, heard := map[string]bool{}, map[string]bool{}
	for _, e := range g.Edges {
		switch e.Kind {
		case "publishes":
			sent[e.To] = sent[e.To] || slices.Contains(g.Nodes, graphNode{e.To, "live"})
		case "watches":
			heard[e.From] = true
		}
	}
	for _, from := range slices.Sorted(maps.Keys(sent)) {
		for _, to := range slices.Sorted(maps.Keys(heard)) {
			if sent[from] && from != to && wire.Covers(to, from) {
				g.Edges = append(g.Edges, graphEdge{From: from, To: to, Kind: "reaches", Word: from})
			}
		}
	}
}

func (o *options) graphText(g *graph) error {
	if len(g.Edges) == 0 {
		o.say("nothing flows: no service publishes, consumes, calls or handles anything")
		return nil
	}
	w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\t\tTO\tBY\tOBSERVED")
	for _, e := range g.Edges {
		fmt.Fprintf(w, "%s\t→\t%s\t%s: %s\t%s\n", e.From, e.To, e.Kind, e.Word, cmp.Or(e.observed(), "-"))
	}
	return w.Flush()
}

func (g *graph) dot() string {
	var b strings.Builder
	b.WriteString("digraph hozo {\n  rankdir=LR;\n")
	shapes := map[string]string{"service": "box", "client": "component", "stream": "cylinder", "call": "diamond", "task": "folder", "live": "ellipse"}
	for _, n := range g.Nodes {
		fmt.Fprintf(&b, "  %q [shape=%s, label=%q];\n", n.Kind+" "+n.Name, shapes[n.Kind], n.Name)
	}
	for _, e := range g.Edges {
		style := "solid"
		if e.Events != nil && !e.Seen {
			style = "dashed"
		}
		fmt.Fprintf(&b, "  %q -> %q [label=%q, style=%s];\n", g.id(e, true), g.id(e, false), e.label(), style)
	}
	b.WriteString("}\n")
	return b.String()
}

// id names an end of an edge: a service and a stream may have the same name.
func (g *graph) id(e graphEdge, from bool) string {
	name := e.To
	if from {
		name = e.From
	}
	program := from == e.outward() && e.Kind != "reaches"
	for _, n := range g.Nodes {
		if n.Name == name && (n.Kind == "service" || n.Kind == "client") == program {
			return n.Kind + " " + n.Name
		}
	}
	return name
}

func (g *graph) mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := map[string]string{}
	open := map[string][2]string{"service": {"[", "]"}, "client": {"([", "])"}, "stream": {"[(", ")]"}, "call": {"{", "}"}, "task": {"[[", "]]"}, "live": {"((", "))"}}
	for i, n := range g.Nodes {
		id := fmt.Sprintf("n%d", i)
		ids[n.Kind+" "+n.Name] = id
		fmt.Fprintf(&b, "  %s%s%q%s\n", id, open[n.Kind][0], n.Name, open[n.Kind][1])
	}
	for _, e := range g.Edges {
		arrow := "-->"
		if e.Events != nil && !e.Seen {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "  %s %s|%q| %s\n", ids[g.id(e, true)], arrow, e.label(), ids[g.id(e, false)])
	}
	return b.String()
}
