package resource

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctl is a setting of the kernel, now and after a boot.
type sysctl struct {
	key string
	id  string

	Value string `json:"value"`
}

func sysctlKind() Kind {
	return Kind{
		Name: "sysctl", Is: Text, Doc: "A setting of the kernel, now and after each boot.",
		Keys: []Key{{Name: "value", Type: Text, Doc: "Its value.", Required: true}},
		make: func(s Spec) Resource { return &sysctl{key: s.Name, id: s.ID()} },
	}
}

func (s *sysctl) valid() error {
	if s.key == "" || strings.ContainsAny(s.key, "/ \n") || strings.Contains(s.key, "..") {
		return fmt.Errorf("%q is no name like net.core.somaxconn", s.key)
	}
	if strings.Contains(s.Value, "\n") {
		return fmt.Errorf("its value is more than one line")
	}
	return nil
}

// Check implements Resource.
func (s *sysctl) Check(ctx context.Context, h *Host) (Change, error) {
	live := filepath.Join("/proc/sys", strings.ReplaceAll(s.key, ".", "/"))
	has, err := os.ReadFile(live)
	if err != nil {
		return Change{}, failed(s.id, "the kernel does not know it", "correct the name, or load the module that it belongs to", err)
	}
	text := fmt.Sprintf("%s = %s\n", s.key, s.Value)
	c, err := (attributes{Owner: "root", Group: "root", Mode: "0644"}).put(ctx, h, s.id, "/etc/sysctl.d/60-hozo-"+s.key+".conf", Digest([]byte(text)), inline([]byte(text)), false)
	if err != nil {
		return c, err
	}
	if now := strings.Join(strings.Fields(string(has)), " "); now != strings.Join(strings.Fields(s.Value), " ") {
		c.do(Update, fmt.Sprintf("value %s -> %s", now, s.Value), func(context.Context) error {
			if err := os.WriteFile(live, []byte(s.Value), 0); err != nil {
				return failed(s.id, "the kernel does not take "+s.Value, "correct the value", err)
			}
			return nil
		})
	}
	return c, nil
}
