package resource

import (
	"context"
	"fmt"
	"strings"
)

// cron is a job of the system's cron, as a file of its own in /etc/cron.d.
type cron struct {
	name string
	id   string

	At     string `json:"at"`
	Run    string `json:"run"`
	User   string `json:"user"`
	Absent bool   `json:"absent"`
}

func cronKind() Kind {
	return Kind{
		Name: "cron", Is: Text, Doc: "A job of the system's cron. A service with a schedule is better: it misses no run and is watched.",
		Keys: []Key{
			{Name: "at", Type: Cron, Doc: "When, as five fields."},
			{Name: "run", Type: Text, Doc: "What, as a line for the shell."},
			{Name: "user", Type: Text, Doc: "As whom. Default root."},
			absent("There must be no such job."),
		},
		OneOf: []string{"run"},
		make:  func(s Spec) Resource { return &cron{name: s.Name, id: s.ID(), User: "root"} },
	}
}

func (j *cron) valid() error {
	// cron passes over files with other characters, without a word.
	if j.name == "" || strings.ContainsFunc(j.name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) {
		return fmt.Errorf("%q is no name of a job: letters, digits, _ and -", j.name)
	}
	if !j.Absent && (strings.ContainsAny(j.Run, "\n\r") || j.At == "") {
		return fmt.Errorf("it needs at, and run on one line")
	}
	return nil
}

// Check implements Resource.
func (j *cron) Check(ctx context.Context, h *Host) (Change, error) {
	path := "/etc/cron.d/hozo-" + j.name
	if j.Absent {
		return removal(j.id, path, false)
	}
	if _, _, _, err := h.owner(j.User, ""); err != nil {
		return Change{}, failed(j.id, err.Error(), "add user: "+j.User+" before it", nil)
	}
	text := fmt.Sprintf("# written by hozo\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n%s %s %s\n", j.At, j.User, strings.ReplaceAll(j.Run, "%", `\%`))
	return (attributes{Owner: "root", Group: "root", Mode: "0644"}).put(ctx, h, j.id, path, Digest([]byte(text)), inline([]byte(text)), false)
}
