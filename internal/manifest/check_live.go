package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/wire"
)

// live keeps the live patterns apart from what streams store and from the platform's own subjects.
func (c *checker) live() {
	for i, pattern := range c.m.Live {
		at := c.item(pattern, "live")
		if overlap(pattern, "hozo.>") {
			c.add(at, "reserved-name", fmt.Sprintf("the live pattern %q is under hozo, which is the platform's own, or reaches into it", pattern), "begin it with another name")
		}
		for _, s := range c.m.Streams {
			if overlap(pattern, s.Name) || overlap(pattern, s.Name+".>") {
				c.add(at, "live-in-stream", fmt.Sprintf("stream %s stores subjects of the live pattern %s", s.Name, pattern), "rename one; a stream's events are read with consumes")
			}
		}
		for _, other := range c.m.Live[:i] {
			if wire.Covers(other, pattern) || wire.Covers(pattern, other) {
				c.add(at, "live-twice", fmt.Sprintf("the live patterns %s and %s overlap", other, pattern), "keep the wider one")
			}
		}
	}
}

// isLive reports whether one live pattern holds all of a subject.
func (c *checker) isLive(subject string) bool {
	return slices.ContainsFunc(c.m.Live, func(p string) bool { return wire.Covers(p, subject) })
}

// watches checks what a service listens to.
func (c *checker) watches(s *Service) {
	for i, pattern := range s.Watches {
		at := c.item(pattern, section(s), s.Name, "watches")
		if !c.isLive(pattern) {
			fix := fmt.Sprintf("declare it: live: [%s]", pattern)
			if near := closest(pattern, c.m.Live); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			if streams, _ := c.storing(pattern); len(streams) > 0 {
				fix = fmt.Sprintf("stream %s stores it: write consumes: [%s]", streams[0], pattern)
			}
			c.add(at, "not-live", fmt.Sprintf("%s %q watches %s, which is not within one live pattern", noun(s), s.Name, pattern), fix)
		}
		for _, other := range s.Watches[:i] {
			if overlap(other, pattern) {
				c.add(at, "watched-twice", fmt.Sprintf("%s %q would get live events twice: it watches %s and %s", noun(s), s.Name, other, pattern), "keep the wider one, or patterns that exclude each other")
			}
		}
	}
}

// overlap reports whether some subject matches both patterns.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		switch {
		case i >= len(x) || i >= len(y):
			return false
		case x[i] == ">" || y[i] == ">":
			return true
		case x[i] != y[i] && x[i] != "*" && y[i] != "*":
			return false
		}
	}
	return true
}
