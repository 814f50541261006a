package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// line is one line of a text file: there once, in place of the last line that match finds, or at the end. The file keeps
// its owner and mode.
type line struct {
	text string
	id   string

	In     string `json:"in"`
	Match  string `json:"match"`
	Absent bool   `json:"absent"`
}

func lineKind() Kind {
	return Kind{
		Name: "line", Is: Text, Doc: "A line of a text file.",
		Keys: []Key{
			{Name: "in", Type: Path, Doc: "The file, which must exist.", Required: true},
			{Name: "match", Type: Text, Doc: "Regular expression of lines that it replaces: the last one becomes the line, others are left. Default: none, it is added at the end."},
			absent("No such line, and none that match finds."),
		},
		make: func(s Spec) Resource { return &line{text: s.Name, id: s.ID()} },
	}
}

func (l *line) valid() error {
	if strings.ContainsAny(l.text, "\n\r") {
		return fmt.Errorf("it is more than one line")
	}
	_, err := regexp.Compile(l.Match)
	return err
}

// maxLines bounds a file whose lines are edited: 4 MiB is far beyond any configuration.
const maxLines = 4 << 20

// Check implements Resource.
func (l *line) Check(_ context.Context, h *Host) (Change, error) {
	var c Change
	path, err := followed(l.In)
	if err != nil {
		return c, failed(l.id, "the path cannot be followed", "correct the path", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		if l.Absent && errors.Is(err, fs.ErrNotExist) {
			return c, nil
		}
		if h.installing() && errors.Is(err, fs.ErrNotExist) {
			c.do(Update, "once the package is there", nil)
			return c, nil
		}
		return c, failed(l.id, "the file cannot be read", "add file: "+l.In+" before it, or correct the path", err)
	}
	old, err := readBounded(path, maxLines)
	if err != nil || old == nil {
		return c, failed(l.id, fmt.Sprintf("the file cannot be read, or is larger than %d bytes", maxLines), "use file: for it", err)
	}
	wanted := l.edited(string(old))
	if wanted == string(old) {
		return c, nil
	}
	c.Diff, _ = unified(l.In, old, []byte(wanted), false)
	has := info.Sys().(*syscall.Stat_t)
	c.do(Update, "", func(context.Context) error {
		if err := replace(path, []byte(wanted), info.Mode()&permissions, int(has.Uid), int(has.Gid)); err != nil {
			return failed(l.id, "the file could not be written", "see whether the disk is full or read-only", err)
		}
		return nil
	})
	return c, nil
}

// edited returns the text as it must be.
func (l *line) edited(text string) string {
	all := lines(text)
	match := func(s string) bool { return false }
	if l.Match != "" {
		match = regexp.MustCompile(l.Match).MatchString // valid has compiled it
	}
	if l.Absent {
		all = slices.DeleteFunc(all, func(s string) bool { return s == l.text || match(s) })
		if len(all) == len(lines(text)) {
			return text
		}
		return joined(all)
	}
	if slices.Contains(all, l.text) {
		return text
	}
	for i := len(all) - 1; i >= 0; i-- {
		if match(all[i]) {
			all[i] = l.text
			return joined(all)
		}
	}
	return joined(append(all, l.text))
}

func joined(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "\n") + "\n"
}
