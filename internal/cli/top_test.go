package cli_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/term"
)

const topManifest = `project: top
streams: { raw: { max_bytes: 16MiB } }
services:
  ingest: { builtin: ingest, listen: { http: 0 }, publishes: [raw] }
  files: { builtin: sink, consumes: [raw], to: { file: out } }
`

// TestTop draws on a terminal, follows its size and its keys, and leaves it as it was, however it ends.
func TestTop(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "hz") // a unix socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "hozo.yaml"), []byte(topManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	hozo := func(args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(binDir, "hozo"), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("hozo %v: %v\n%s", args, err, out)
		}
	}
	hozo("up", "-d")
	t.Cleanup(func() { hozo("down") })

	for name, end := range map[string]func(*screen, *os.Process) error{
		"q":      func(s *screen, _ *os.Process) error { s.press("q"); return nil },
		"ctrl-c": func(s *screen, _ *os.Process) error { s.press("\x03"); return nil },
		"TERM":   func(_ *screen, p *os.Process) error { return p.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openScreen(t, 30, 110)
			before, err := term.GetState(int(s.tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(binDir, "hozo"), "top", "--every", "100ms")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "TERM=xterm-256color")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = s.tty, s.tty, s.tty
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			s.await("every column and the help", func() bool {
				return s.vt.IsAltScreen() && s.shows(`(?s)SERVICE.*MEMORY\s.*files +1/1.*STREAM.*raw .*files 0.*sort \(manifest\)`)
			})
			s.press("s")
			s.await("the name of another column", func() bool { return s.shows(`SERVICE\*(?s:.*)\nfiles .*\ningest .*`) && s.shows(`sort \(name\)`) })
			s.press("\x1b[B\r") // down, which is ingest by now, and enter
			s.await("the instances of one service", func() bool { return s.shows(`INSTANCE(?s:.*)ingest\.1 `) && !s.shows(`files +1/1`) })
			s.press("\r")
			s.await("all services", func() bool { return s.shows(`files +1/1`) })
			s.resize(t, 12, 36)
			s.await("the most important columns", func() bool { return !s.shows(`MEMORY`) && s.shows(`SERVICE.*IN/s`) && s.shows(`(?m)^raw +files 0`) })
			if err := end(s, cmd.Process); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("hozo top: %v", err)
			}
			s.await("the first screen, with a cursor", func() bool { return !s.vt.IsAltScreen() && !s.vt.CursorHidden() })
			after, err := term.GetState(int(s.tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			if *before != *after {
				t.Errorf("the terminal's mode is %+v, was %+v", after, before)
			}
		})
	}
}

// screen is a terminal, with somebody who looks at it.
type screen struct {
	ptm, tty *os.File
	vt       *vt.SafeEmulator
	changed  chan struct{}
	t        *testing.T
}

func openScreen(t *testing.T, rows, cols int) *screen {
	t.Helper()
	ptm, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{ptm: ptm, tty: tty, vt: vt.NewSafeEmulator(cols, rows), changed: make(chan struct{}, 1), t: t}
	s.resize(t, rows, cols)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(s, ptm) })    // it ends with an error when the terminal is closed
	wg.Go(func() { _, _ = io.Copy(ptm, s.vt) }) // what a terminal answers; ends with its pipe
	t.Cleanup(func() {
		_ = s.vt.InputPipe().(io.Closer).Close() // its Close races with its Read
		tty.Close()
		wg.Wait()
		ptm.Close()
	})
	return s
}

func (s *screen) Write(p []byte) (int, error) {
	n, err := s.vt.Write(p)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return n, err
}

func (s *screen) resize(t *testing.T, rows, cols int) {
	t.Helper()
	s.vt.Resize(cols, rows)
	if err := pty.Setsize(s.ptm, &pty.Winsize{Rows: uint16(rows), Cols: uint16(cols)}); err != nil {
		t.Fatal(err)
	}
}

func (s *screen) shows(pattern string) bool {
	return regexp.MustCompile(pattern).MatchString(ansi.Strip(s.vt.Render()))
}

// await waits until the screen is as it should be.
func (s *screen) await(what string, ok func() bool) {
	s.t.Helper()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-s.changed:
		case <-limit:
			s.t.Fatalf("the terminal does not show %s, but:\n%s", what, ansi.Strip(s.vt.Render()))
		}
	}
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := s.ptm.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}
