package cli

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/internal/logfile"
)

const (
	// followEvery is how often a followed log is looked at: below what a person notices.
	followEvery = 100 * time.Millisecond
	// lookEvery is how often new instances are looked for.
	lookEvery = time.Second
)

// tailing is one log that is being read, and its next line.
type tailing struct {
	name   string
	reader *logfile.Reader
	line   logfile.Line
	missed uint64 // files, as told already
}

// byTime orders logs by their next lines. What one instance said keeps its order whatever its clock did.
type byTime []*tailing

func (b byTime) Len() int      { return len(b) }
func (b byTime) Swap(i, j int) { b[i], b[j] = b[j], b[i] }
func (b *byTime) Push(x any)   { *b = append(*b, x.(*tailing)) }

func (b byTime) Less(i, j int) bool {
	if !b[i].line.Time.Equal(b[j].line.Time) {
		return b[i].line.Time.Before(b[j].line.Time)
	}
	return b[i].name < b[j].name
}

func (b *byTime) Pop() any {
	last := (*b)[len(*b)-1]
	*b = (*b)[:len(*b)-1]
	return last
}

// logView shows logs.
type logView struct {
	*options
	opts logsOptions
	logs map[string]*tailing
	out  *bufio.Writer
	json *json.Encoder
	dim  painter
}

// showLogs prints the chosen logs. With opts.follow it goes on until ctx ends, across rotations and restarts and with
// instances that appear later.
func (o *options) showLogs(ctx context.Context, opts logsOptions) error {
	v := &logView{options: o, opts: opts, logs: map[string]*tailing{}, out: bufio.NewWriterSize(o.env.Stdout, 64<<10), dim: newPainter(o.env.Stdout, o.env)}
	v.json = json.NewEncoder(v.out)
	v.json.SetEscapeHTML(false)
	defer func() {
		for _, t := range v.logs {
			t.reader.Close()
		}
	}()
	place := func(r *logfile.Reader) error {
		if opts.tail {
			return r.Tail(opts.lines)
		}
		return r.Since(opts.since)
	}
	looked := time.Now()
	if err := v.look(ctx, place); err != nil {
		return err
	}
	read := time.NewTicker(followEvery)
	defer read.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if err := v.show(); err != nil {
			return err
		}
		if !opts.follow {
			return nil
		}
		select {
		case <-read.C:
		case <-look.C:
			// A node that restarts cannot say what is new; the next look will. What appears now may have spoken since
			// the last look.
			before := looked
			now := time.Now()
			if err := v.look(ctx, func(r *logfile.Reader) error { return r.Since(before) }); err == nil {
				looked = now
			}
		case <-ctx.Done():
			_ = v.show() // the last words; why it ends is what counts
			return context.Cause(ctx)
		}
	}
}

// look opens the logs that are not open yet.
func (v *logView) look(ctx context.Context, place func(*logfile.Reader) error) error {
	found, err := v.findLogs(ctx, v.opts.names)
	if err != nil {
		return err
	}
	for _, l := range found {
		if v.logs[l.name] != nil {
			continue
		}
		r, err := logfile.NewReader(l.path)
		if err == nil {
			err = place(r)
		}
		if err != nil {
			return fmt.Errorf("read log of %s: %w", l.name, err)
		}
		v.logs[l.name] = &tailing{name: l.name, reader: r}
	}
	return nil
}

// show prints everything that the logs have now, in the order of time.
func (v *logView) show() error {
	var next byTime
	for _, t := range v.logs {
		ok, err := v.advance(t)
		if err != nil {
			return err
		}
		if ok {
			next = append(next, t)
		}
	}
	heap.Init(&next)
	for len(next) > 0 {
		first := next[0]
		if err := v.print(first.name, first.line); err != nil {
			return err
		}
		ok, err := v.advance(first)
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(&next, 0)
		} else {
			heap.Pop(&next)
		}
	}
	return v.out.Flush()
}

// advance finds the next line of a log that is to be shown.
func (v *logView) advance(t *tailing) (bool, error) {
	for {
		line, ok, err := t.reader.Next()
		if err != nil {
			return false, fmt.Errorf("read log of %s: %w", t.name, err)
		}
		if missed := t.reader.Missed(); missed > t.missed {
			v.say("%d files of %s were dropped before they could be read", missed-t.missed, t.name)
			t.missed = missed
		}
		if !ok && !v.opts.follow {
			line, ok = t.reader.Rest()
		}
		if !ok {
			return false, nil
		}
		if v.wanted(line) {
			t.line = line
			return true, nil
		}
	}
}

func (v *logView) wanted(line logfile.Line) bool {
	o := v.opts
	if !o.since.IsZero() && line.Time.Before(o.since.Add(-logfile.Interval)) && !line.Time.IsZero() && o.tail {
		return false
	}
	if !o.until.IsZero() && line.Time.After(o.until) {
		return false
	}
	return o.grep == nil || o.grep.Match(line.Text) != o.invert
}

// logLine is a line of a log as JSON. Bytes that are not UTF-8 become U+FFFD.
type logLine struct {
	Instance string     `json:"instance"`
	Time     *time.Time `json:"time,omitempty"`
	Text     string     `json:"text"`
	Part     bool       `json:"part,omitempty"` // the line goes on in the next of this instance
}

func (v *logView) print(name string, line logfile.Line) error {
	text := bytes.TrimSuffix(line.Text, []byte{'\r'})
	at := line.Time.Truncate(time.Millisecond)
	if v.options.json {
		out := logLine{Instance: name, Text: string(text), Part: line.Part}
		if !line.Time.IsZero() {
			out.Time = &at
		}
		return v.json.Encode(out)
	}
	head := fmt.Sprintf("%-12s |", name)
	if v.opts.times {
		head = at.Format("2006-01-02T15:04:05.000Z07:00 ") + head
	}
	_, err := fmt.Fprintf(v.out, "%s %s\n", v.dim.dim(head), text)
	return err
}
