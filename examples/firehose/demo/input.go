package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hozo-dev/hozo/internal/ghevents"
)

// input makes the file or address that is sent. For generated events it also says how many of each type there are.
func (d demo) input() (source string, types map[string]int, err error) {
	if d.events != "" {
		if strings.HasPrefix(d.events, "http") {
			return d.events, nil, nil
		}
		source, err = filepath.Abs(d.events)
		if err != nil {
			return "", nil, err
		}
		if _, err := os.Stat(source); err != nil {
			return "", nil, fmt.Errorf("the events cannot be read: %w", err)
		}
		return source, nil, nil
	}
	source = filepath.Join(d.dir, "data", "generated.ndjson")
	types = map[string]int{}
	var all bytes.Buffer
	g := ghevents.New(1)
	var line []byte
	for range d.count {
		line = g.Next(line[:0])
		var event struct{ Type string }
		if err := json.Unmarshal(line, &event); err != nil {
			return "", nil, fmt.Errorf("generate events: %w", err)
		}
		types[event.Type]++
		all.Write(line)
	}
	fmt.Printf("generated %d events, %.1f MB\n", d.count, float64(all.Len())/1e6)
	return source, types, os.WriteFile(source, all.Bytes(), 0o644)
}

// command runs hozo and passes its output on.
func (d demo) command(ctx context.Context, args ...string) error {
	cmd := d.exec(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("hozo %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// query runs hozo and decodes the JSON that it prints.
func (d demo) query(ctx context.Context, v any, args ...string) error {
	cmd := d.exec(ctx, append(args, "--json")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	decodeErr := json.NewDecoder(out).Decode(v)
	_, _ = io.Copy(io.Discard, out) // let it finish
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("hozo %s: %w", strings.Join(args, " "), err)
	}
	return decodeErr
}

func (d demo) exec(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.hozo, args...)
	cmd.Dir = d.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd
}
