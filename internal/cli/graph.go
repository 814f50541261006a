package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/status"
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
	Kind string `json:"kind"` // service, stream, call, task or live
}

type graphEdge struct {
	From   string  `json:"from"`
	To     string  `json:"to"`
	Kind   string  `json:"kind"`             // publishes, consumes, watches, calls, serves, enqueues, handles
	Word   string  `json:"word"`             // as written in the manifest
	Events *uint64 `json:"events,omitempty"` // of a service, out on this edge since its reports began
	Behind *uint64 `json:"behind,omitempty"` // frames that the reader has not finished
	Seen   bool    `json:"observed"`         // something has flowed
}

func newGraph(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Print what flows from where to where, declared and observed",
		Long: `Print the topology that the manifest declares, and, when the project runs, what has been observed on each edge: events
sent, and how far a reader is behind. An edge on which nothing has flowed is dashed.

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
	in := func(kind, from, to, word string) {
		g.Edges = append(g.Edges, graphEdge{From: from, To: to, Kind: kind, Word: word})
	}
	for _, s := range m.Streams {
		node("stream", s.Name)
	}
	for _, s := range m.Services {
		node("service", s.Name)
		for _, p := range s.Publishes {
			to := p.Stream
			if to == "" {
				to = p.Subject
				node("live", to)
			}
			in("publishes", s.Name, to, p.Subject)
		}
		for _, c := range s.Consumes {
			in("consumes", c.Stream, s.Name, c.Subject)
		}
		for _, w := range s.Watches {
			node("live", w)
			in("watches", w, s.Name, w)
		}
		out := func(kind, of string, words []string) {
			for _, word := range words {
				node(of, word)
				in(kind, s.Name, word, word)
			}
		}
		back := func(kind, of string, words []string) {
			for _, word := range words {
				node(of, word)
				in(kind, word, s.Name, word)
			}
		}
		out("calls", "call", s.Calls)
		back("serves", "call", s.Serves)
		out("enqueues", "task", s.Enqueues)
		back("handles", "task", s.Handles)
	}
	return g
}

// observe adds what a running project has counted.
func (g *graph) observe(s status.Snapshot) {
	g.Running = true
	sent, behind := map[string]map[string]uint64{}, map[[2]string]uint64{}
	read := map[string]uint64{}
	for _, service := range s.Services {
		sent[service.Name] = service.Traffic.Routes
		read[service.Name] = service.Traffic.EventsIn
	}
	for _, stream := range s.Streams {
		for _, c := range stream.Consumers {
			behind[[2]string{stream.Name, c.Service}] = c.Lag + uint64(c.InFlight)
		}
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		switch e.Kind {
		case "publishes":
			var sum uint64
			for subject, n := range sent[e.From] {
				if wire.Covers(e.Word, subject) || strings.HasPrefix(subject, e.Word+".in.") { // the latter is ingest's own
					sum += n
				}
			}
			e.Events, e.Seen = &sum, sum > 0
		case "consumes":
			if n, ok := behind[[2]string{e.From, e.To}]; ok {
				e.Behind = &n
			}
			e.Seen = read[e.To] > 0
		}
	}
}

func (e graphEdge) label() string {
	switch {
	case e.Events != nil:
		return fmt.Sprintf("%s, %d sent", e.Word, *e.Events)
	case e.Behind != nil:
		return fmt.Sprintf("%s, %d behind", e.Word, *e.Behind)
	}
	return e.Word
}

func (o *options) graphText(g *graph) error {
	if len(g.Edges) == 0 {
		o.say("nothing flows: no service publishes, consumes, calls or handles anything")
		return nil
	}
	w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\t\tTO\tBY\tOBSERVED")
	for _, e := range g.Edges {
		seen := "-"
		if e.Events != nil || e.Behind != nil {
			_, seen, _ = strings.Cut(e.label(), ", ")
		}
		fmt.Fprintf(w, "%s\t→\t%s\t%s: %s\t%s\n", e.From, e.To, e.Kind, e.Word, seen)
	}
	return w.Flush()
}

func (g *graph) dot() string {
	var b strings.Builder
	b.WriteString("digraph hozo {\n  rankdir=LR;\n")
	shapes := map[string]string{"service": "box", "stream": "cylinder", "call": "diamond", "task": "folder", "live": "ellipse"}
	for _, n := range g.Nodes {
		fmt.Fprintf(&b, "  %q [shape=%s, label=%q];\n", n.Kind+" "+n.Name, shapes[n.Kind], n.Name)
	}
	for _, e := range g.Edges {
		style := "solid"
		if g.Running && !e.Seen {
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
	service := from == (e.Kind == "publishes" || e.Kind == "calls" || e.Kind == "enqueues")
	for _, n := range g.Nodes {
		if n.Name == name && (n.Kind == "service") == service {
			return n.Kind + " " + n.Name
		}
	}
	return name
}

func (g *graph) mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := map[string]string{}
	open := map[string][2]string{"service": {"[", "]"}, "stream": {"[(", ")]"}, "call": {"{", "}"}, "task": {"[[", "]]"}, "live": {"((", "))"}}
	for i, n := range g.Nodes {
		id := fmt.Sprintf("n%d", i)
		ids[n.Kind+" "+n.Name] = id
		fmt.Fprintf(&b, "  %s%s%q%s\n", id, open[n.Kind][0], n.Name, open[n.Kind][1])
	}
	for _, e := range g.Edges {
		arrow := "-->"
		if g.Running && !e.Seen {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "  %s %s|%q| %s\n", ids[g.id(e, true)], arrow, e.label(), ids[g.id(e, false)])
	}
	return b.String()
}
