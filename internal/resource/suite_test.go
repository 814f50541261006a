package resource_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lab"
	"github.com/hozo-dev/hozo/internal/resource"
)

// onHost makes the test binary a program that applies resources on the host that it is started on.
const onHost = "apply-on-this-host"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == onHost {
		answer := work(os.Stdin)
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// task is what is done on a host in one go.
type task struct {
	Specs []resource.Spec
	Blobs map[string][]byte
	Apply bool
}

// found is what Check said of a resource.
type found struct {
	ID     string
	Change resource.Change
	Error  string
}

// done is what a task came to: what was planned, and what is still missing after it was applied.
type done struct {
	Planned []found
	Left    []found
	Error   string
}

func work(in io.Reader) (answer done) {
	var todo task
	if err := json.NewDecoder(in).Decode(&todo); err != nil {
		return done{Error: err.Error()}
	}
	ctx := context.Background()
	host := &resource.Host{Blob: func(digest string) ([]byte, error) {
		data, ok := todo.Blobs[digest]
		if !ok {
			return nil, fmt.Errorf("no content %s", digest)
		}
		return data, nil
	}}
	var all []resource.Resource
	for _, s := range todo.Specs {
		r, err := resource.New(s)
		if err != nil {
			return done{Error: err.Error()}
		}
		all = append(all, r)
	}
	look := func() (some []found) {
		for i, r := range all {
			c, err := r.Check(ctx, host)
			if err != nil {
				some = append(some, found{ID: todo.Specs[i].ID(), Error: err.Error()})
			} else if !c.Empty() {
				some = append(some, found{ID: todo.Specs[i].ID(), Change: c})
			}
		}
		host.Kept()
		return some
	}
	answer.Planned = look()
	if !todo.Apply {
		return answer
	}
	for _, r := range all {
		c, err := r.Check(ctx, host)
		if err == nil {
			err = c.Apply(ctx)
		}
		if err != nil {
			answer.Error = err.Error()
			return answer
		}
	}
	answer.Left = look()
	return answer
}

// bench is a host with the test binary on it.
type bench struct {
	*lab.Host
	program string
}

func newBench(t *testing.T, h *lab.Host) bench {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	const program = "/run/lab/program"
	if err := os.WriteFile(h.Path(program), data, 0o700); err != nil {
		t.Fatal(err)
	}
	return bench{h, program}
}

func (b bench) do(t testing.TB, todo task) done {
	t.Helper()
	text, err := json.Marshal(todo)
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.Command(t.Context(), b.program, onHost)
	cmd.Stdin = bytes.NewReader(text)
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // see testkit.EndAtOnce
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var answer done
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return answer
}

func (b bench) layer(t testing.TB) lab.Layer {
	t.Helper()
	l, err := b.Layer()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// step is one thing asked of a resource, on a host as the step before has left it.
type step struct {
	before string // shell, run on the host first
	spec   resource.Spec
	needs  []resource.Spec // applied before it, in the same plan
	blob   string          // content, given to the spec as its digest

	op     resource.Op
	note   string   // in the notes or the diff
	writes []string // regular expressions of all paths that it may write, each of which it must
	fails  string   // instead of all that: in the error of Check

	says string // what the shell command verify writes afterwards
	ask  string
}

func TestEveryKindDoesWhatItsPlanSaysAndThenNothing(t *testing.T) {
	t.Parallel()
	all := cases()
	for _, k := range resource.Kinds() {
		if _, ok := all[k.Name]; !ok {
			t.Errorf("kind %s has no case in this suite", k.Name)
		}
	}
	l := lab.New(t, len(all))
	t.Run("kind", func(t *testing.T) {
		next := 0
		for kind, steps := range all {
			h := l.Hosts[next]
			next++
			t.Run(kind, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, h)
				for i, s := range steps {
					b.step(t, fmt.Sprintf("%s, step %d", kind, i+1), s)
				}
			})
		}
	})
}

func (b bench) step(t *testing.T, name string, s step) {
	t.Helper()
	if s.before != "" {
		if out, err := b.Run(t.Context(), s.before); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	todo := task{Specs: append(slices.Clone(s.needs), s.spec), Blobs: map[string][]byte{}}
	if s.blob != "" {
		digest := resource.Digest([]byte(s.blob))
		with := map[string]any{"digest": digest}
		maps.Copy(with, s.spec.With)
		todo.Specs[len(todo.Specs)-1].With = with
		todo.Blobs[digest] = []byte(s.blob)
	}
	before := b.layer(t)
	looked := b.do(t, todo)
	if since := b.layer(t).Since(before); len(since) > 0 {
		t.Errorf("%s: a look has written %v", name, since)
	}
	if s.fails != "" {
		if len(looked.Planned) != 1 || !strings.Contains(looked.Planned[0].Error, s.fails) {
			t.Errorf("%s: %+v, want the error %q", name, looked, s.fails)
		}
		return
	}
	if len(looked.Planned) != 1+len(s.needs) || looked.Error != "" || looked.Planned[len(s.needs)].Error != "" {
		t.Fatalf("%s: planned %+v", name, looked)
	}
	c := looked.Planned[len(s.needs)].Change
	if c.Op != s.op || !strings.Contains(strings.Join(c.Notes, "\n")+c.Diff, s.note) {
		t.Errorf("%s: %+v, want %s with %q", name, c, s.op, s.note)
	}
	todo.Apply = true
	did := b.do(t, todo)
	if did.Error != "" || len(did.Left) > 0 {
		t.Fatalf("%s: %s, left %+v", name, did.Error, did.Left)
	}
	b.wrote(t, name, b.layer(t).Since(before), s.writes)
	if s.ask != "" {
		if out, err := b.Run(t.Context(), s.ask); err != nil || out != s.says {
			t.Errorf("%s: %s says %q, %v, want %q", name, s.ask, out, err, s.says)
		}
	}
	before = b.layer(t)
	if again := b.do(t, todo); again.Error != "" || len(again.Planned) > 0 {
		t.Errorf("%s: the second time: %+v", name, again)
	}
	if since := b.layer(t).Since(before); len(since) > 0 {
		t.Errorf("%s: the second time has written %v", name, since)
	}
}

func (b bench) wrote(t *testing.T, name string, paths, allowed []string) {
	t.Helper()
	used := make([]bool, len(allowed))
	for _, p := range paths {
		at := slices.IndexFunc(allowed, func(a string) bool { return regexp.MustCompile("^(?:" + a + ")$").MatchString(p) })
		if at < 0 {
			t.Errorf("%s: wrote %s, which is not said", name, p)
			continue
		}
		used[at] = true
	}
	for i, u := range used {
		if !u {
			t.Errorf("%s: wrote nothing like %s, but %v", name, allowed[i], paths)
		}
	}
}

func TestASpecThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]resource.Spec{
		"resource/unknown-kind": {Kind: "fiel", Name: "/x"},
		"resource/bad-spec":     {Kind: "file", Name: "/x", With: map[string]any{"owner": "root", "colour": "red"}},
	} {
		if _, err := resource.New(s); fault.Code(err) != want {
			t.Errorf("%v: %v", s, err)
		}
	}
	for _, s := range []resource.Spec{
		{Kind: "file", Name: "/x", With: map[string]any{"mode": "rw"}},
		{Kind: "directory", Name: "/etc", With: map[string]any{"absent": true}},
		{Kind: "line", Name: "a\nb", With: map[string]any{"in": "/x"}},
		{Kind: "line", Name: "a", With: map[string]any{"in": "/x", "match": "("}},
		{Kind: "user", Name: "-rf"},
		{Kind: "user", Name: "a b"},
		{Kind: "group", Name: "1x"},
		{Kind: "user", Name: "a", With: map[string]any{"uid": "many"}},
		{Kind: "package", Name: "--purge"},
		{Kind: "unit", Name: "../x"},
		{Kind: "sysctl", Name: "../etc/passwd", With: map[string]any{"value": "1"}},
		{Kind: "cron", Name: "a.b", With: map[string]any{"at": "* * * * *", "run": "true"}},
		{Kind: "git", Name: "/x", With: map[string]any{"repo": "--upload-pack=x"}},
		{Kind: "archive", Name: "/etc"},
		{Kind: "hostname", Name: "a_b!"},
		{Kind: "authorized_keys", Name: "root", With: map[string]any{"keys": []string{"not a key"}}},
	} {
		if _, err := resource.New(s); fault.Code(err) != "resource/invalid" {
			t.Errorf("%v: %v", s, err)
		}
	}
}

// TestEveryKeyOfTheManifestIsOneOfTheSpec holds the table of words against the types that read them.
func TestEveryKeyOfTheManifestIsOneOfTheSpec(t *testing.T) {
	t.Parallel()
	values := map[resource.Type]any{
		resource.Text: "1", resource.Path: "/a/b", resource.Mode: "0640", resource.Bool: false, resource.Words: []string{"ssh-ed25519 AAAA"},
		resource.Argv: []string{"true"}, resource.Cron: "* * * * *",
	}
	for _, k := range resource.Kinds() {
		with := map[string]any{}
		for _, key := range k.Keys {
			switch {
			case key.Name == "secret":
			case key.Name == "on_notify":
				with[key.Name] = "reload"
			case key.Name == "content", key.Type == resource.Local:
				with["digest"] = strings.Repeat("0", 64)
			default:
				with[key.Name] = values[key.Type]
			}
		}
		name := "name"
		if k.Is == resource.Path {
			name = filepath.Join("/srv", "name")
		}
		if _, err := resource.New(resource.Spec{Kind: k.Name, Name: name, With: with}); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
}
