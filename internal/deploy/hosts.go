package deploy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy/protocol"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/resource"
)

// maxTemplate bounds a template, which is held and parsed whole.
const maxTemplate = 4 << 20

// Hosts makes what a deploy needs of a manifest: the hosts that only names, or all, with the content of the files that
// their resources are made of. It reads files and connects to nothing; its errors are faults of kind Misuse, all at once.
func Hosts(m *manifest.Manifest, only []string) ([]Host, error) {
	if len(m.Hosts) == 0 {
		what, fix := fmt.Sprintf("the environment %q has no hosts", m.Env), "add them under envs: { "+m.Env+": { hosts: … } }"
		if m.Env == "" {
			what, fix = "no environment was named", "name one that has hosts with -e"
		}
		return nil, &fault.Error{Code: "deploy/no-hosts", Kind: fault.Misuse, What: what, Where: m.Path, Fix: fix}
	}
	var known []string
	for _, h := range m.Hosts {
		known = append(known, h.Name)
	}
	for _, name := range only {
		if !slices.Contains(known, name) {
			return nil, &fault.Error{Code: "deploy/unknown-host-name", Kind: fault.Misuse, What: fmt.Sprintf("there is no host %q", name), Where: m.Path, Fix: "known: " + strings.Join(known, ", ")}
		}
	}
	var all []Host
	var errs []error
	files := map[string][]byte{}
	for _, h := range m.Hosts {
		if len(only) > 0 && !slices.Contains(only, h.Name) {
			continue
		}
		made, err := hostOf(m, h, files)
		if err != nil {
			errs = append(errs, err)
		}
		all = append(all, made)
	}
	if len(errs) > 0 {
		return nil, distinct(errs)
	}
	return all, nil
}

// distinct joins errors, each once: many hosts share a file that is missing.
func distinct(errs []error) error {
	var all []error
	for _, err := range errs {
		for _, one := range fault.Flatten(err) {
			if !slices.ContainsFunc(all, func(e error) bool { return e.Error() == one.Error() }) {
				all = append(all, one)
			}
		}
	}
	return errors.Join(all...)
}

func hostOf(m *manifest.Manifest, h manifest.Host, files map[string][]byte) (Host, error) {
	made := Host{
		Name: h.Name, Blobs: map[string][]byte{},
		Target: Target{Addr: h.Addr, User: h.SSH.User, Key: h.SSH.Key, KnownHosts: h.SSH.KnownHosts, Jump: h.SSH.Jump, NoSudo: h.SSH.NoSudo},
	}
	data := m.Variables(h)
	var errs []error
	for _, r := range h.Resources {
		content, has := []byte(r.Content), r.With["digest"] != nil
		if r.Local != "" {
			var err error
			if content, err = local(m, r, data, files); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		spec := r.Spec
		if has {
			spec.With = maps.Clone(r.With)
			digest := resource.Digest(content)
			spec.With["digest"] = digest
			made.Blobs[digest] = content
		}
		made.Resources = append(made.Resources, spec)
	}
	return made, errors.Join(errs...)
}

// local reads the file that a resource's content is made of, once for all hosts, and renders it if it is a template.
func local(m *manifest.Manifest, r manifest.HostResource, data map[string]any, files map[string][]byte) ([]byte, error) {
	name := r.Local
	if rel, err := filepath.Rel(m.Dir, name); err == nil {
		name = rel
	}
	content, ok := files[r.Local]
	if !ok {
		var err error
		if content, err = readFile(r.Local, protocol.MaxFrame-1024); err != nil {
			return nil, &fault.Error{Code: "deploy/no-file", Kind: fault.Misuse, What: fmt.Sprintf("%s cannot be made of %s", r.ID(), name), Where: r.Place, Fix: "write the file, or correct from", Err: err}
		}
		files[r.Local] = content
	}
	if filepath.Ext(name) != ".tmpl" {
		return content, nil
	}
	if len(content) > maxTemplate {
		return nil, &fault.Error{Code: "deploy/bad-template", Kind: fault.Misuse, What: fmt.Sprintf("a template is larger than %d bytes", maxTemplate), Where: name, Fix: "keep data in files that are no templates"}
	}
	text, err := manifest.Render(name, string(content), data)
	if err != nil {
		return nil, templateFault(name, err)
	}
	return []byte(text), nil
}

// templateFault gives an error of text/template its place: "template: NAME:LINE:COL: executing …: what".
func templateFault(name string, err error) error {
	f := &fault.Error{Code: "deploy/bad-template", Kind: fault.Misuse, What: "the template is wrong: " + err.Error(), Where: name, Fix: "correct it: Go's text/template, with the variables under vars"}
	parts := regexp.MustCompile(`^template: ` + regexp.QuoteMeta(name) + `:([0-9:]+): (?:executing "[^"]*" at <[^>]*>: )?(.*)$`).FindStringSubmatch(err.Error())
	if parts != nil {
		f.What, f.Where = "the template is wrong: "+parts[2], name+":"+parts[1]
		if variable := regexp.MustCompile(`no entry for key "([^"]*)"`).FindStringSubmatch(parts[2]); variable != nil {
			f.What, f.Fix = fmt.Sprintf("there is no variable %q", variable[1]), "add it under vars, or correct the name"
		}
	}
	return f
}

func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("it is larger than %d bytes", most)
	}
	return data, err
}
