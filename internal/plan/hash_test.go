package plan_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/hozo-dev/hozo/internal/plan"
)

// hotFields can change under a running process. Every other field of Spec must change its Hash.
var hotFields = []string{"Health", "Liveness", "Restart", "Stop", "Needs", "Log", "Limits", "Rolling", "Node", "Schedule", "Hooks", "Essential"}

func TestEveryFieldOfSpecIsEitherColdOrHot(t *testing.T) {
	t.Parallel()
	base := plan.Spec{}
	fields := reflect.TypeFor[plan.Spec]()
	for i := range fields.NumField() {
		field := fields.Field(i)
		for path, changed := range changes(t, field.Type) {
			var s plan.Spec
			reflect.ValueOf(&s).Elem().Field(i).Set(changed)
			hot := slices.Contains(hotFields, field.Name)
			if cold := s.Hash() != base.Hash(); cold == hot {
				t.Errorf("%s%s: changes Hash is %v, is hot is %v", field.Name, path, cold, hot)
			}
			if keys := slices.Concat(changedKeys(base.Cold(), s.Cold()), changedKeys(base.Hot(), s.Hot())); len(keys) == 0 && field.Name != "Name" && field.Name != "Service" {
				t.Errorf("%s%s: no key names the change", field.Name, path)
			}
			if changes := s.HotHash() != base.HotHash(); changes != hot {
				t.Errorf("%s%s: changes HotHash is %v, is hot is %v", field.Name, path, changes, hot)
			}
		}
	}
}

func changedKeys(before, after plan.Parts) []string {
	var keys []string
	for k := range after {
		if before[k] != after[k] {
			keys = append(keys, k)
		}
	}
	return keys
}

// changes returns values of a type that differ from its zero value, one for each place in which they can.
func changes(t *testing.T, of reflect.Type) map[string]reflect.Value {
	t.Helper()
	all := make(map[string]reflect.Value)
	v := reflect.New(of).Elem()
	switch of.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(7)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Pointer:
		for path, inner := range changes(t, of.Elem()) {
			p := reflect.New(of.Elem())
			p.Elem().Set(inner)
			all[path] = p
		}
		return all
	case reflect.Map:
		m := reflect.MakeMap(of)
		m.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("x"))
		return map[string]reflect.Value{"[k]": m}
	case reflect.Slice:
		for path, inner := range changes(t, of.Elem()) {
			all["[0]"+path] = reflect.Append(v, inner)
		}
		return all
	case reflect.Struct:
		for i := range of.NumField() {
			for path, inner := range changes(t, of.Field(i).Type) {
				s := reflect.New(of).Elem()
				s.Field(i).Set(inner)
				all["."+of.Field(i).Name+path] = s
			}
		}
		return all
	default:
		t.Fatalf("a Spec holds a %s: teach this test to change one", of)
	}
	all[""] = v
	return all
}

func TestHashIgnoresWhatMeansTheSame(t *testing.T) {
	t.Parallel()
	a := plan.Spec{Env: []string{"A=1", "B=2"}}
	b := plan.Spec{Env: []string{"B=2", "A=1"}, Argv: []string{}, Listen: []plan.Listen{}}
	if a.Hash() != b.Hash() {
		t.Error("the order of keys, or empty instead of nil, changes the hash")
	}
	first := plan.Spec{Env: []string{"A=1", "A=2"}}
	second := plan.Spec{Env: []string{"A=2", "A=1"}}
	if first.Hash() == second.Hash() {
		t.Error("which of two lines of one key counts does not change the hash")
	}
	if s := (plan.Spec{Health: &plan.Health{TCP: "x:1"}}); s.HotHash() != s.WithDefaults().HotHash() {
		t.Error("a default that is written out changes the hash")
	}
}

// A changed hash restarts every service of every project at the next upgrade. If that is meant, update it here.
func TestHashIsTheSameAsInTheLastRelease(t *testing.T) {
	t.Parallel()
	uid := uint32(7)
	s := plan.Spec{
		Name: "classify.1", Service: "classify", Argv: []string{"/bin/classify"}, Env: []string{"A=1"}, Dir: "/srv",
		UID: &uid, GID: &uid, Groups: []uint32{7}, Listen: []plan.Listen{{"http", "tcp", "127.0.0.1:80"}}, Notify: true,
	}
	const want = "19f061b4720ab55b9e53febee9e7887a"
	if got := s.Hash(); got != want {
		t.Errorf("hash is %s, was %s", got, want)
	}
}
