package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"text/template"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

//go:embed e2e/hozo.yaml.tmpl
var hozoManifest string

const (
	filesName  = "files"  // ours, storing compressed files
	sqliteName = "sqlite" // ours, storing rows
)

// store is where a project of ours keeps what came through.
type store interface {
	await(ctx context.Context, n uint64) (time.Time, error)
	each(ctx context.Context, visit func(id, kind []byte)) error
	close() error
}

// hozo is a project of ours: ingest, classify ×2, enrich, route and one sink, started through the command line.
type hozo struct {
	kind, bin, dir string
	port           int
	keeper         int // pid
	store
}

var _ contender = (*hozo)(nil)

func newHozo(kind, bin, dir string) *hozo { return &hozo{kind: kind, bin: bin, dir: dir} }

func (h *hozo) name() string { return h.kind }

func (h *hozo) durability() string {
	if h.kind == filesName {
		return "answer: kill -9 of every process; file: loss of power (fsynced)"
	}
	return "answer: kill -9 of every process; row: the same (synchronous=NORMAL)"
}

func (h *hozo) url() string { return fmt.Sprintf("http://127.0.0.1:%d/v1/ingest", h.port) }

// roots is the keeper: every process of the project is below it.
func (h *hozo) roots() []int { return []int{h.keeper} }

func (h *hozo) start(ctx context.Context) error {
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return err
	}
	var err error
	if h.port, err = freePort(ctx); err != nil {
		return err
	}
	manifest, err := render(h.kind, h.bin, h.port)
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.manifest(), manifest, 0o600); err != nil {
		return err
	}
	if _, err := h.command(ctx, "up", "-d"); err != nil {
		return err
	}
	answer, err := h.command(ctx, "status", "--json")
	if err != nil {
		return err
	}
	var now status.Snapshot
	if err := json.Unmarshal([]byte(answer), &now); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	for _, p := range now.Platform {
		if p.Name == "keeper" {
			h.keeper = p.PID
		}
	}
	if h.keeper == 0 {
		return errors.New("the status names no keeper")
	}
	if h.kind == filesName {
		h.store = &lake{dir: filepath.Join(h.dir, "data", "lake")}
		return nil
	}
	h.store, err = openTable(filepath.Join(h.dir, "data", "events.db"))
	return err
}

// render fills in the manifest.
func render(kind, bin string, port int) ([]byte, error) {
	text, err := template.New("hozo.yaml").Option("missingkey=error").Parse(hozoManifest)
	if err != nil {
		return nil, fmt.Errorf("parse manifest template: %w", err)
	}
	var manifest bytes.Buffer
	if err := text.Execute(&manifest, map[string]any{"Port": port, "Bin": bin, "Sink": kind}); err != nil {
		return nil, fmt.Errorf("fill in manifest: %w", err)
	}
	return manifest.Bytes(), nil
}

func (h *hozo) manifest() string { return filepath.Join(h.dir, "hozo.yaml") }

func (h *hozo) command(ctx context.Context, verb string, args ...string) (string, error) {
	args = append([]string{verb, "--file", h.manifest(), "--state", filepath.Join(h.dir, "state")}, args...)
	return output(ctx, h.dir, filepath.Join(h.bin, "hozo"), args...)
}

// stop brings the project down. What does not end by itself, or was left by a failed start, is killed.
func (h *hozo) stop(ctx context.Context) error {
	var errs []error
	if h.store != nil {
		errs = append(errs, h.close())
	}
	if _, err := os.Stat(filepath.Join(h.dir, "state")); err != nil {
		return errors.Join(errs...) // never started
	}
	left, err := tree(h.roots()) // known before their parents end
	if err != nil {
		left = nil // the keeper is gone, or was never seen: nothing to hold on to
	}
	_, err = h.command(ctx, "down")
	return errors.Join(append(errs, err, end(ctx, left))...)
}

// exitPatience is how long a process that was told to end may need to be gone.
const exitPatience = 2 * time.Second

// end waits for processes that should end by themselves and kills those that do not.
func end(ctx context.Context, left []process) error {
	ctx, cancel := context.WithTimeout(ctx, exitPatience)
	defer cancel()
	lives := func(p process) bool { return parentIs(p.pid, p.parent, 1) }
	err := poll(ctx, "the project's processes to end", 10*time.Millisecond, func() (bool, error) {
		return !slices.ContainsFunc(left, lives), nil
	})
	for _, p := range left {
		if lives(p) {
			err = errors.Join(err, fmt.Errorf("process %d (%s) outlived `hozo down` and was killed", p.pid, p.program()))
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may be gone by now
		}
	}
	return err
}
