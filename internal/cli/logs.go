package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/node"
)

type logsOptions struct {
	names  []string // services or instances; empty: all
	follow bool
	lines  int // of the past, of each instance
}

func newLogs(o *options) *cobra.Command {
	var opts logsOptions
	cmd := &cobra.Command{
		Use:               "logs [SERVICE|INSTANCE…]",
		Short:             "Show the output of services",
		ValidArgsFunction: o.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			opts.names = args
			return o.follow(cmd.Context(), client, opts)
		},
	}
	cmd.Flags().BoolVarP(&opts.follow, "follow", "f", false, "go on as more is written")
	cmd.Flags().IntVarP(&opts.lines, "lines", "n", 50, "lines of the past, of each instance")
	return o.jsonFlag(cmd)
}

// followed is one log that is being read.
type followed struct {
	name, path string
	file       *os.File
	rest       []byte // an unfinished line
}

// follow prints the logs of the named services. With opts.follow it goes on until ctx ends, across rotations and
// restarts and with instances that appear later.
func (o *options) follow(ctx context.Context, client *node.Client, opts logsOptions) error {
	logs := map[string]*followed{}
	defer func() {
		for _, l := range logs {
			l.file.Close()
		}
	}()
	if err := o.openLogs(ctx, client, opts, logs, opts.lines); err != nil {
		return err
	}
	// A log is read again soon after it grew: 100 ms is below what a person notices.
	read := time.NewTicker(100 * time.Millisecond)
	defer read.Stop()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		names := make([]string, 0, len(logs))
		for name := range logs {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := o.drain(logs[name]); err != nil {
				return err
			}
		}
		if !opts.follow {
			return nil
		}
		select {
		case <-read.C:
		case <-look.C:
			// A node that restarts cannot say what is new; the next look will.
			_ = o.openLogs(ctx, client, opts, logs, 0)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// openLogs opens the logs that are not open yet, each at the last lines of its past.
func (o *options) openLogs(ctx context.Context, client *node.Client, opts logsOptions, logs map[string]*followed, lines int) error {
	s, err := client.Status(ctx)
	if err != nil {
		return err
	}
	matched := false
	for _, service := range s.Services {
		for _, i := range service.Instances {
			if len(opts.names) > 0 && !slices.Contains(opts.names, service.Name) && !slices.Contains(opts.names, i.Name) {
				continue
			}
			matched = true
			if logs[i.Name] != nil {
				continue
			}
			file, err := os.Open(i.Log)
			if os.IsNotExist(err) {
				continue // it has written nothing yet
			}
			if err != nil {
				return fmt.Errorf("open log: %w", err)
			}
			if err := seekLines(file, lines); err != nil {
				file.Close()
				return fmt.Errorf("read log %s: %w", i.Log, err)
			}
			logs[i.Name] = &followed{name: i.Name, path: i.Log, file: file}
		}
	}
	if !matched && len(opts.names) > 0 {
		return &fault.Error{Code: "logs/unknown", Kind: fault.Misuse, What: "nothing is called " + strings.Join(opts.names, " or "), Fix: "`hozo ps` lists the names"}
	}
	return nil
}

// drain prints what was added to a log, and goes over to the new file when it was rotated.
func (o *options) drain(l *followed) error {
	for {
		if err := o.copyLines(l); err != nil {
			return err
		}
		now, err := os.Stat(l.path)
		if err != nil {
			return nil // between rename and create there is no file for a moment
		}
		open, err := l.file.Stat()
		if err != nil {
			return fmt.Errorf("stat log: %w", err)
		}
		if os.SameFile(now, open) {
			return nil
		}
		// What was written between the last read and the rename is still in the old file.
		if err := o.copyLines(l); err != nil {
			return err
		}
		next, err := os.Open(l.path)
		if err != nil {
			return nil // as above
		}
		l.file.Close()
		l.file = next
	}
}

func (o *options) copyLines(l *followed) error {
	r := bufio.NewReaderSize(l.file, 64<<10)
	for {
		part, err := r.ReadSlice('\n')
		l.rest = append(l.rest, part...)
		// A line longer than maxLogLine is printed in pieces rather than held.
		if bytes.HasSuffix(l.rest, []byte{'\n'}) || len(l.rest) > maxLogLine {
			if err := o.printLine(l.name, bytes.TrimRight(l.rest, "\r\n")); err != nil {
				return err
			}
			l.rest = l.rest[:0]
		}
		switch err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			return nil
		default:
			return fmt.Errorf("read log %s: %w", l.path, err)
		}
	}
}

// maxLogLine bounds the memory of one line.
const maxLogLine = 1 << 20

func (o *options) printLine(name string, line []byte) error {
	if o.json {
		return json.NewEncoder(o.env.Stdout).Encode(map[string]string{"instance": name, "line": string(line)})
	}
	_, err := fmt.Fprintf(o.env.Stdout, "%s %s\n", newPainter(o.env.Stdout, o.env).dim(fmt.Sprintf("%-12s |", name)), line)
	return err
}

// seekLines places file at the start of its last n lines.
func seekLines(file *os.File, n int) error {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil || n <= 0 {
		return err
	}
	// 64 KiB hold 50 long lines; whoever asks for more than fits gets what fits.
	back := min(end, int64(n)*1300)
	buf := make([]byte, back)
	if _, err := file.ReadAt(buf, end-back); err != nil && err != io.EOF {
		return err
	}
	at := len(bytes.TrimSuffix(buf, []byte{'\n'}))
	for range n {
		if at = bytes.LastIndexByte(buf[:max(at, 0)], '\n'); at < 0 {
			break
		}
	}
	_, err = file.Seek(end-back+int64(at+1), io.SeekStart)
	return err
}

// tailFile returns the last n lines of the file at path, or "" when it cannot be read.
func tailFile(path string, n int) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	if err := seekLines(file, n); err != nil {
		return ""
	}
	data, err := io.ReadAll(io.LimitReader(file, maxLogLine))
	if err != nil {
		return ""
	}
	return tail(string(data), n)
}
