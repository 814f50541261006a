package manifest

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/resource"
	"github.com/hozo-dev/hozo/internal/schedule"
)

// hosts renders what every host must have, and checks it.
func (c *checker) hosts() {
	for _, name := range c.node("vars").names() {
		if slices.Contains(givenVariables(), name) {
			c.add(c.key("vars", name), "reserved-name", fmt.Sprintf("%q is always there, as what it says", name), "choose another name")
		}
	}
	var known []string
	for _, r := range c.m.Roles.all {
		known = append(known, r.name)
	}
	for i := range c.m.Hosts {
		h := &c.m.Hosts[i]
		h.SSH = h.SSH.over(c.m.SSH)
		for _, name := range h.Roles {
			if !slices.Contains(known, name) {
				c.add(c.item(name, "hosts", h.Name, "roles"), "unknown-role", fmt.Sprintf("host %s has the role %q, under which nothing stands", short(h.Name), short(name)), orKnown(name, known, "it under host"))
			}
		}
		c.resources(h)
	}
	if len(c.m.Hosts) == 0 { // nothing is rendered, but what is no template can be checked
		bare := Host{Name: "HOST"}
		for _, r := range c.m.Roles.all {
			c.itemsOf(&bare, r, nil, map[string]position{})
		}
	}
}

func (c *checker) resources(h *Host) {
	data := c.m.Variables(*h)
	at := map[string]position{} // by place
	for _, r := range c.m.Roles.all {
		if r.name == "all" || slices.Contains(h.Roles, r.name) {
			c.itemsOf(h, r, data, at)
		}
	}
	seen := map[string]position{}
	for _, r := range h.Resources {
		if first, twice := seen[r.ID()]; twice {
			c.add(at[r.Place], "duplicate-resource", fmt.Sprintf("%s is there twice for host %s; first in line %d", short(r.ID()), short(h.Name), first.line), "keep one of the two")
		}
		seen[r.ID()] = at[r.Place]
		if in, ok := r.With["in"].(string); ok && slices.ContainsFunc(h.Resources, func(o HostResource) bool { return o.Kind == "file" && o.Name == in }) {
			c.add(at[r.Place], "two-writers", fmt.Sprintf("%s is written as a whole by file, and again by this line", short(in)), "put the line into the file")
		}
	}
	c.notifications(h, at)
}

func (c *checker) notifications(h *Host, at map[string]position) {
	var told, able []string
	for _, r := range h.Resources {
		if r.Kind == "unit" || r.Kind == "command" {
			able = append(able, r.ID())
		}
	}
	for _, r := range h.Resources {
		for _, id := range r.Notify {
			told = append(told, id)
			if !slices.Contains(able, id) {
				c.add(at[r.Place], "unknown-notify", fmt.Sprintf("%s notifies %q, which host %s has not", short(r.ID()), short(id), short(h.Name)), orKnown(id, able, "a unit or a command of that name"))
			}
		}
	}
	for _, r := range h.Resources {
		if resource.OnlyNotified(r.Spec) && !slices.Contains(told, r.ID()) {
			c.add(at[r.Place], "never-needed", fmt.Sprintf("%s does not say when it is needed", short(r.ID())), "add creates, unless or check, or notify it from another resource")
		}
	}
}

// itemsOf renders a role's resources for a host; without data only what is no template is looked at.
func (c *checker) itemsOf(h *Host, r role, data map[string]any, at map[string]position) {
	for _, item := range r.items {
		k, _ := kindOf(item) // the decoder has asked
		before := len(c.found)
		made, ok := c.spec(k, item, data)
		if !ok || len(c.found) > before {
			continue
		}
		made.Place = fmt.Sprintf("%s:%d", filepath.Base(c.m.Path), item.at.line)
		if _, err := resource.New(made.Spec); err != nil {
			what := err.Error()
			if f, is := fault.As(err); is {
				what = f.What
			}
			c.add(item.entries[0].value.at, "bad-resource", what, "correct the value")
			continue
		}
		at[made.Place] = item.at
		h.Resources = append(h.Resources, made)
	}
}

// spec makes one resource of its node. ok is false when something in it is wrong, or unknown without data.
func (c *checker) spec(k resource.Kind, item *node, data map[string]any) (s HostResource, ok bool) {
	s.Spec, ok = resource.Spec{Kind: k.Name, With: map[string]any{}}, true
	for i, e := range item.entries {
		key, _ := k.Key(e.name)
		switch {
		case i == 0:
			key = resource.Key{Name: k.Name, Type: k.Is, Doc: k.Doc}
		case e.name == "notify":
			key = resource.Key{Name: "notify", Type: resource.Words}
		}
		v, good := c.render(key, e.value, data)
		if !good {
			ok = false
			continue
		}
		words, many := v.([]string)
		switch {
		case i == 0 && many:
			s.Name = strings.Join(words, " ")
		case i == 0:
			s.Name = v.(string)
		case e.name == "notify":
			s.Notify = words
		case e.name == "secret":
			s.Secret = v.(bool)
		case e.name == "content" || key.Type == resource.Local:
			if e.name == "content" {
				s.Content = v.(string)
			} else {
				s.Local = v.(string)
			}
			s.With["digest"] = resource.Digest([]byte(s.Content)) // of a file only in its place, until that is read
		default:
			s.With[e.name] = v
		}
	}
	if absent := item.get("absent"); ok && len(k.OneOf) > 0 && (absent == nil || absent.text != "true") && !slices.ContainsFunc(k.OneOf, func(name string) bool { return item.get(name) != nil }) {
		c.add(item.entries[0].at, "missing-key", fmt.Sprintf("%s has no %s", k.Name, strings.Join(k.OneOf, " and no ")), "add one of them")
		ok = false
	}
	if item.get("content") != nil && item.get("from") != nil {
		c.add(item.entry("from").at, "two-contents", k.Name+" has both content and from", "keep one of the two")
		ok = false
	}
	return s, ok
}

// render makes the value of a key: text, []string or bool.
func (c *checker) render(key resource.Key, n *node, data map[string]any) (any, bool) {
	switch key.Type {
	case resource.Words, resource.Argv:
		return c.renderList(key, n, data)
	}
	if !n.scalar() {
		c.add(n.at, "bad-type", fmt.Sprintf("%s must be one value, not %s", key.Name, n), "write one value")
		return nil, false
	}
	text, ok := c.text(n, n.text, data)
	if !ok {
		return nil, false
	}
	v, err := typed(key.Type, text, c.m.Dir)
	if err != nil {
		c.add(n.at, "bad-value", fmt.Sprintf("%s: %s", key.Name, err), "correct it: "+key.Doc)
		return nil, false
	}
	return v, true
}

func typed(t resource.Type, text, dir string) (any, error) {
	switch t {
	case resource.Bool:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q is neither true nor false", short(text))
		}
		return text == "true", nil
	case resource.Mode:
		_, err := resource.ParseMode(text)
		return text, err
	case resource.Path:
		if !filepath.IsAbs(text) || text == "/" {
			return nil, fmt.Errorf("%q is no absolute path on the host", short(text))
		}
		return filepath.Clean(text), nil
	case resource.Cron:
		_, err := schedule.Cron(text, nil)
		return text, err
	case resource.Local:
		if !filepath.IsAbs(text) {
			text = filepath.Join(dir, text)
		}
		return filepath.Clean(text), nil
	}
	return text, nil
}

func (c *checker) renderList(key resource.Key, n *node, data map[string]any) (any, bool) {
	var words []string
	items := n.items
	switch {
	case n.scalar() && key.Type == resource.Argv:
		split, err := splitWords(n.text)
		if err != nil {
			at := n.at
			if w, ok := errors.AsType[*wordError](err); ok {
				at = n.character(w.offset)
			}
			c.add(at, "bad-command", key.Name+": "+err.Error(), "quote it, or write [sh, -c, '…'] for a shell")
			return nil, false
		}
		for _, w := range split {
			items = append(items, &node{kind: kindText, text: w, at: n.at, inline: -1})
		}
	case n.scalar():
		items = []*node{n}
	case n.kind == kindList && len(items) == 0:
		c.add(n.at, "empty-list", key.Name+" is empty", "name something in it, or remove the key")
		return nil, false
	case n.kind != kindList:
		c.add(n.at, "bad-type", fmt.Sprintf("%s must be a list, not %s", key.Name, n), "write [a, b]")
		return nil, false
	}
	good := true
	for _, i := range items {
		if !i.scalar() {
			c.add(i.at, "bad-type", fmt.Sprintf("%s must hold plain values, not %s", key.Name, i), "write one value an item")
			good = false
			continue
		}
		text, ok := c.text(i, i.text, data)
		good = good && ok
		words = append(words, text)
	}
	if good && (len(words) == 0 || words[0] == "") {
		c.add(n.at, "empty-list", key.Name+" is empty", "name something in it, or remove the key")
		good = false
	}
	return words, good
}

// text renders a template in a value. Without data a template is left for later.
func (c *checker) text(n *node, text string, data map[string]any) (string, bool) {
	if !strings.Contains(text, "{{") {
		return text, true
	}
	out, err := Render("value", text, data)
	if data == nil {
		if err != nil && templatePart.MatchString(err.Error()) {
			return "", false // it has variables, which only an environment knows
		}
		return "", c.templateFault(n, err, nil)
	}
	return out, c.templateFault(n, err, data)
}

// templatePart is how text/template says that a variable is not there.
var templatePart = regexp.MustCompile(`map has no entry for key "([^"]*)"|nil data|<nil>`)

func (c *checker) templateFault(n *node, err error, data map[string]any) bool {
	if err == nil {
		return data != nil
	}
	if m := templatePart.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		var names []string
		for name := range data {
			names = append(names, name)
		}
		slices.Sort(names)
		c.add(n.at, "undefined-variable", fmt.Sprintf("there is no variable %q", short(m[1])), orKnown(m[1], names, "it under vars"))
		return false
	}
	what := regexp.MustCompile(`^template: value:[0-9:]* (executing "value" at )?`).ReplaceAllString(err.Error(), "")
	c.add(n.at, "bad-template", "the template is wrong: "+what, "correct it: Go's text/template, with the variables under vars")
	return false
}

// Render renders a Go template with the variables of a host. name is what errors call it.
func Render(name, text string, data map[string]any) (string, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{"join": func(sep string, all []string) string { return strings.Join(all, sep) }}).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, data)
	return b.String(), err
}
