package node

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// odd are fields whose values are looked up or parsed on the way: any text will not do.
var odd = map[string]string{
	"Service.User": "nobody", "Service.Stop.Signal": "INT", "Service.Health.HTTP": "http://127.0.0.1/x", "Stream.Durability": "power",
	"Service.Builtin": "ingest",
}

// builtinOf is the kind of service that has a setting.
var builtinOf = map[string]string{"Ingest": "ingest", "RouteBy": "route", "To": "sink", "ZMQ": "zmq"}

// A field of the manifest that takes no part in the difference is one whose change never takes effect.
func TestEveryFieldOfTheManifestTakesPartInTheDifference(t *testing.T) {
	t.Parallel()
	n, err := New(Config{State: testkit.TempDir(t), Executable: "/bin/true"})
	if err != nil {
		t.Fatal(err)
	}
	// A file of variables takes part by what is in it.
	file, other := filepath.Join(n.cfg.State, "a.env"), filepath.Join(n.cfg.State, "b.env")
	for path, text := range map[string]string{file: "A=1\n", other: "A=2\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := func(builtin string) *manifest.Manifest {
		m := &manifest.Manifest{
			Project: "p", Streams: make([]manifest.Stream, 1), Services: make([]manifest.Service, 1),
		}
		fill(t, reflect.ValueOf(&m.Services[0]).Elem())
		fill(t, reflect.ValueOf(&m.Streams[0]).Elem())
		fill(t, reflect.ValueOf(&m.Broker).Elem())
		s := &m.Services[0]
		s.Name, s.Builtin, s.Scale, s.User, s.Dir, s.Run = "s", builtin, 1, "", "/", []string{"/bin/true"}
		s.Stop.Signal = "TERM"
		s.EnvFile[0].Path = file
		m.Streams[0].Name = "stream"
		s.Publishes = []manifest.Route{{Subject: "stream", Stream: "stream"}}
		s.Consumes = []manifest.Source{{Subject: "stream.a", Stream: "stream"}}
		return m
	}
	fields := 0
	check := func(path, builtin string, change func(*manifest.Manifest)) {
		t.Helper()
		fields++
		before, after := prepareOf(t, n, base(builtin)), base(builtin)
		change(after)
		now := prepareOf(t, n, after)
		var have []plan.Have
		for _, s := range before.specs {
			have = append(have, plan.Have{Name: s.Name, Hash: s.Hash(), Hot: s.HotHash(), Running: true, Cold: s.Cold(), HotWas: s.Hot()})
		}
		steps := append(streamSteps(before.layout, now.layout), plan.Diff(now.specs, have)...)
		if len(steps) == 0 {
			t.Errorf("%s: a change of it is no step", path)
		}
		for _, s := range steps {
			if s.Op == plan.OpRestart && len(s.Keys) == 0 {
				t.Errorf("%s: the reason %q names no key", path, s.Reason)
			}
		}
		if steps := plan.Diff(before.specs, have); len(steps) > 0 {
			t.Fatalf("without a change there are steps: %v", steps)
		}
	}
	for _, leaf := range leaves(reflect.TypeFor[manifest.Service](), "Service") {
		top := strings.Split(leaf, ".")[1]
		top, _, _ = strings.Cut(top, "[")
		builtin := builtinOf[top]
		check(leaf, builtin, func(m *manifest.Manifest) {
			switch leaf {
			case "Service.EnvFile[].Path":
				m.Services[0].EnvFile[0].Path = other
			case "Service.EnvFile[].Optional": // it counts where there is no file
				m.Services[0].EnvFile[0] = manifest.EnvFile{Path: filepath.Join(n.cfg.State, "none.env"), Optional: true}
			default:
				set(t, reflect.ValueOf(&m.Services[0]).Elem(), leaf)
			}
		})
	}
	for _, leaf := range leaves(reflect.TypeFor[manifest.Stream](), "Stream") {
		check(leaf, "", func(m *manifest.Manifest) { set(t, reflect.ValueOf(&m.Streams[0]).Elem(), leaf) })
	}
	for _, leaf := range leaves(reflect.TypeFor[manifest.Broker](), "Broker") {
		check(leaf, "", func(m *manifest.Manifest) { set(t, reflect.ValueOf(&m.Broker).Elem(), leaf) })
	}
	if fields < 50 {
		t.Errorf("only %d fields were looked at", fields)
	}
}

func prepareOf(t *testing.T, n *Node, m *manifest.Manifest) *prepared {
	t.Helper()
	p, err := n.prepare(m, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fill gives every pointer something to point at, and every list and map one element, so that each leaf can be changed.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(t, field)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	default:
	}
}

// leaves lists the paths of everything in a type that holds one value.
func leaves(of reflect.Type, path string) []string {
	switch of.Kind() {
	case reflect.Pointer:
		return leaves(of.Elem(), path)
	case reflect.Struct:
		var all []string
		for field := range of.Fields() {
			all = append(all, leaves(field.Type, path+"."+field.Name)...)
		}
		return all
	case reflect.Slice:
		return leaves(of.Elem(), path+"[]")
	default:
		return []string{path}
	}
}

// set changes the leaf at path.
func set(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	for _, name := range strings.Split(path, ".")[1:] {
		name, list := strings.CutSuffix(name, "[]")
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		v = v.FieldByName(name)
		if list {
			v = v.Index(0)
		}
	}
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.String:
		text := odd[path]
		if text == "" {
			text = filepath.Join("/", v.String(), "changed")
			if strings.Contains(path, "Name") || strings.Contains(path, "Subject") || strings.Contains(path, "Stream") {
				text = "changed"
			}
		}
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 7)
	case reflect.Uint64:
		v.SetUint(v.Uint() + 7)
	case reflect.Float64:
		v.SetFloat(v.Float() + 7)
	case reflect.Map:
		v.SetMapIndex(reflect.ValueOf("KEY"), reflect.ValueOf("changed"))
	default:
		t.Fatalf("%s is a %s: teach this test to change one", path, v.Kind())
	}
}
