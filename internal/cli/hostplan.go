package cli

import (
	"fmt"
	"strings"

	"github.com/hozo-dev/hozo/internal/deploy"
	"github.com/hozo-dev/hozo/internal/deploy/protocol"
	"github.com/hozo-dev/hozo/internal/resource"
)

// signs are how plans and events show what happens.
var signs = map[resource.Op]string{resource.Create: "+", resource.Update: "~", resource.Remove: "-", resource.Run: "!"}

// printHostPlans shows what differs, hosts that differ in the same way together.
func (o *options) printHostPlans(plans []deploy.HostPlan) error {
	p := newPainter(o.env.Stdout, o.env)
	var order []string
	names, first := map[string][]string{}, map[string]deploy.HostPlan{}
	changes, handlers := 0, 0
	for _, one := range plans {
		if _, ok := first[one.Digest]; !ok {
			order, first[one.Digest] = append(order, one.Digest), one
		}
		names[one.Digest] = append(names[one.Digest], one.Host)
		changes, handlers = changes+len(one.Changes), handlers+len(one.Handlers)
	}
	var b strings.Builder
	for _, digest := range order {
		one := first[digest]
		who := p.bold(strings.Join(names[digest], ", "))
		if !one.Pending() {
			fmt.Fprintf(&b, "%s: nothing to do\n", who)
			continue
		}
		fmt.Fprintf(&b, "%s:\n", who)
		for _, c := range one.Changes {
			writeChange(&b, p, c)
		}
		for _, id := range one.Handlers {
			fmt.Fprintf(&b, "  %s %s\n", p.yellow("@"), id+" (notified)")
		}
	}
	fmt.Fprintf(&b, "%d hosts, %d changes, %d notifications\n", len(plans), changes, handlers)
	_, err := fmt.Fprint(o.env.Stdout, b.String())
	return err
}

func writeChange(b *strings.Builder, p painter, c protocol.Planned) {
	sign := signs[c.Change.Op]
	switch c.Change.Op {
	case resource.Create:
		sign = p.green(sign)
	case resource.Remove:
		sign = p.red(sign)
	default:
		sign = p.yellow(sign)
	}
	fmt.Fprintf(b, "  %s %s\n", sign, c.ID)
	for _, note := range c.Change.Notes {
		fmt.Fprintf(b, "      %s\n", note)
	}
	for line := range strings.Lines(c.Change.Diff) {
		line = strings.TrimRight(clean(line), "\n")
		switch {
		case strings.HasPrefix(line, "+"):
			line = p.green(line)
		case strings.HasPrefix(line, "-"):
			line = p.red(line)
		}
		fmt.Fprintf(b, "      %s\n", line)
	}
}

// clean replaces what a terminal would act on: a file's content must not move the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' || r == 0x7f {
			return '�'
		}
		return r
	}, s)
}

// tellEvent writes a line for what has been done on a host.
func (o *options) tellEvent(e deploy.Event) {
	switch {
	case e.Event == nil || e.Begun:
	case e.Handling != "":
		o.say("%s  @ %s  %s  %d ms", e.Host, e.ID, e.Handling, e.MS)
	default:
		o.say("%s  %s %s  %d ms", e.Host, signs[e.Op], e.ID, e.MS)
	}
}
