package manifest

import (
	"fmt"
	"path/filepath"
)

// Places knows where the parts of a manifest stand in its file.
type Places struct{ root *node }

// Equal is always true: a manifest is the same wherever its parts stand.
func (Places) Equal(Places) bool { return true }

// Place says where something stands in the file, "hozo.yaml:12": the last of path that is written, which are keys, or a
// word in the list under the key before it. It is only the file's name for a manifest that was made without a file.
func (m *Manifest) Place(path ...string) string {
	name := filepath.Base(m.Path)
	if m.Places.root == nil || len(path) == 0 {
		return name
	}
	c := &checker{root: m.Places.root}
	return fmt.Sprintf("%s:%d", name, c.item(path[len(path)-1], path[:len(path)-1]...).line)
}
