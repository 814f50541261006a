package cli

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/term"
)

// progressEvery is how often a line of progress changes: as often as a person can read it.
const progressEvery = 200 * time.Millisecond

// oneLine is one line on a terminal that says how far a command is; on anything else it says nothing.
type oneLine struct {
	env   Env
	on    bool
	shown time.Time
}

func newOneLine(env Env) *oneLine {
	file, ok := env.Stderr.(*os.File)
	return &oneLine{env: env, on: ok && term.IsTerminal(int(file.Fd())) && env.Getenv("TERM") != "dumb"}
}

func (p *oneLine) set(format string, args ...any) {
	if !p.on || time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	_, _ = fmt.Fprintf(p.env.Stderr, "\r\x1b[2K"+format, args...) // it is gone in a moment anyway
}

// clear removes the line, if there is one.
func (p *oneLine) clear() {
	if p.on && !p.shown.IsZero() {
		_, _ = fmt.Fprint(p.env.Stderr, "\r\x1b[2K")
	}
}
