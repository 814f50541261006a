package cli

import (
	"fmt"
	"strings"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/wire"
)

// observe adds what a running project has counted.
func (g *graph) observe(s status.Snapshot) {
	g.Running = true
	edges, behind := map[string]map[string]status.Edge{}, map[[2]string]uint64{}
	for _, service := range s.Services {
		edges[service.Name] = service.Traffic.Edges
	}
	for _, stream := range s.Streams {
		for _, c := range stream.Consumers {
			behind[[2]string{stream.Name, c.Service}] = c.Lag + uint64(c.InFlight)
		}
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		if e.Kind == "reaches" {
			continue
		}
		service, name := e.From, e.To
		if !e.outward() {
			service, name = e.To, e.From
		}
		if n, ok := behind[[2]string{e.From, e.To}]; ok && e.Kind == "consumes" {
			e.Behind = &n
		}
		if _, counts := edges[service]; !counts {
			continue // a client, which reports nothing
		}
		var sum status.Edge
		if e.Kind == "publishes" {
			for key, one := range edges[service] {
				subject, ok := strings.CutPrefix(key, wire.EdgeKey(e.Kind, ""))
				if ok && (wire.Covers(e.Word, subject) || strings.HasPrefix(subject, e.Word+".in.")) { // the latter is ingest's own
					sum.Events, sum.PerSecond = sum.Events+one.Events, sum.PerSecond+one.PerSecond
				}
			}
		} else {
			sum = edges[service][wire.EdgeKey(e.Kind, name)]
		}
		e.Events, e.Rate, e.Seen = &sum.Events, sum.PerSecond, sum.Events > 0
	}
}

// outward reports whether an edge leads from its service away.
func (e graphEdge) outward() bool {
	return e.Kind == "publishes" || e.Kind == "calls" || e.Kind == "enqueues"
}

// observed says what has been seen on an edge, "" when nothing can be.
func (e graphEdge) observed() string {
	if e.Events == nil {
		if e.Behind != nil {
			return fmt.Sprintf("%d behind", *e.Behind)
		}
		return ""
	}
	words := map[string]string{"publishes": "sent", "consumes": "read", "watches": "seen", "calls": "asked", "serves": "answered", "enqueues": "enqueued", "handles": "done"}
	text := fmt.Sprintf("%d %s, %.0f/s", *e.Events, words[e.Kind], e.Rate)
	if e.Behind != nil {
		text += fmt.Sprintf(", %d behind", *e.Behind)
	}
	return text
}

func (e graphEdge) label() string {
	if seen := e.observed(); seen != "" {
		return e.Word + ", " + seen
	}
	return e.Word
}
