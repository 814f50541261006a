package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hozo-dev/hozo/internal/status"
)

func newTop(o *options) *cobra.Command {
	var (
		once  bool
		every time.Duration
	)
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch what flows: rates, lag, slow readers, problems",
		Long: `Watch what flows, drawn again every second; Ctrl-C or q ends it. When standard output is no terminal it measures one
interval, prints and ends, as with --once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return misuse(cmd, errors.New("--every must be at least 100ms"))
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			out, isFile := o.env.Stdout.(*os.File)
			once = once || o.json || !isFile || !term.IsTerminal(int(out.Fd()))
			before, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			quit := make(chan struct{})
			if !once {
				restore := rawInput(o.env.Stdin, quit)
				defer restore()
				_, _ = io.WriteString(out, "\x1b[?1049h\x1b[?25l")                    // another screen, without a cursor
				defer func() { _, _ = io.WriteString(out, "\x1b[?25h\x1b[?1049l") }() // and back
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-cmd.Context().Done():
					return nil
				case <-quit:
					return nil
				case <-tick.C:
				}
				now, err := client.Status(cmd.Context())
				if err != nil {
					if cmd.Context().Err() != nil {
						return nil
					}
					return err
				}
				t := topOf(before, now)
				before = now
				switch {
				case o.json:
					return o.printJSON(t)
				case once:
					_, err := io.WriteString(o.env.Stdout, t.text(newPainter(o.env.Stdout, o.env)))
					return err
				}
				if err := draw(out, t.text(newPainter(o.env.Stdout, o.env))); err != nil {
					return err
				}
			}
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "measure one interval, print and end")
	cmd.Flags().DurationVar(&every, "every", time.Second, "interval")
	return o.jsonFlag(cmd)
}

// rawInput closes quit on q or Ctrl-C when input is a terminal; restore puts it back. The read ends with the process:
// there is no way to take it back.
func rawInput(input io.Reader, quit chan<- struct{}) (restore func()) {
	file, ok := input.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}
	}
	old, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return func() {}
	}
	go func() {
		defer close(quit)
		for key := make([]byte, 1); ; {
			if n, err := file.Read(key); err != nil || n == 1 && (key[0] == 'q' || key[0] == 3) {
				return
			}
		}
	}()
	return func() { _ = term.Restore(int(file.Fd()), old) } // the shell repairs what is left
}

// draw shows a page from the top of the screen and cuts what does not fit.
func draw(out *os.File, page string) error {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	lines := strings.Split(strings.TrimRight(page, "\n"), "\n")
	if len(lines) > height {
		lines = append(lines[:max(height-1, 0)], "…")
	}
	var b bytes.Buffer
	b.WriteString("\x1b[H")
	for i, line := range lines {
		if !strings.Contains(line, "\x1b") && len([]rune(line)) > width {
			line = string([]rune(line)[:width])
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	_, err = out.Write(b.Bytes())
	return err
}

// top is what flowed between two looks.
type top struct {
	Project   string           `json:"project"`
	Time      time.Time        `json:"time"`
	Services  []topService     `json:"services"`
	Streams   []topStream      `json:"streams"`
	Saturated string           `json:"saturated,omitempty"`
	Problems  []status.Problem `json:"problems"`
}

type topService struct {
	Name   string  `json:"name"`
	Ready  int     `json:"ready"`
	Scale  int     `json:"scale"`
	In     float64 `json:"events_in_per_second"`
	Out    float64 `json:"events_out_per_second"`
	Bytes  float64 `json:"bytes_in_per_second"`
	Parked uint64  `json:"parked"`
	Busy   float64 `json:"busy"`
	RSS    int64   `json:"rss_bytes"`
}

type topStream struct {
	Name    string      `json:"name"`
	Frames  float64     `json:"frames_per_second"`
	Bytes   uint64      `json:"bytes"`
	Max     int64       `json:"max_bytes"`
	Readers []topReader `json:"readers"`
}

type topReader struct {
	Service string  `json:"service"`
	Behind  uint64  `json:"behind"` // frames not finished: exact, as the broker counts
	Grows   float64 `json:"grows_per_second"`
	Slow    bool    `json:"slow"` // behind, and falling back further
}

// slowBehind is the backlog in frames from which a reader that falls back further is called slow; below it is in hand.
const slowBehind = 32

func topOf(before, now status.Snapshot) top {
	seconds := max(now.Time.Sub(before.Time).Seconds(), 0.001)
	rate := func(a, b uint64) float64 { return float64(b-min(a, b)) / seconds }
	t := top{Project: now.Project, Time: now.Time, Services: []topService{}, Streams: []topStream{}, Saturated: now.Saturated, Problems: now.Problems}
	traffic := map[string]status.Traffic{}
	for _, s := range before.Services {
		traffic[s.Name] = s.Traffic
	}
	for _, s := range now.Services {
		old := traffic[s.Name]
		one := topService{
			Name: s.Name, Scale: s.Scale, In: rate(old.EventsIn, s.Traffic.EventsIn), Out: rate(old.EventsOut, s.Traffic.EventsOut),
			Bytes: rate(old.BytesIn, s.Traffic.BytesIn), Parked: s.Traffic.Parked, Busy: s.Traffic.Busy,
		}
		for _, i := range s.Instances {
			one.RSS += i.RSSBytes
			if i.State == status.Ready {
				one.Ready++
			}
		}
		t.Services = append(t.Services, one)
	}
	streams := map[string]status.Stream{}
	for _, s := range before.Streams {
		streams[s.Name] = s
	}
	for _, s := range now.Streams {
		old := streams[s.Name]
		one := topStream{Name: s.Name, Frames: rate(old.LastSeq, s.LastSeq), Bytes: s.Bytes, Max: s.MaxBytes, Readers: []topReader{}}
		lag := map[string]uint64{}
		for _, c := range old.Consumers {
			lag[c.Service] = c.Lag + uint64(c.InFlight)
		}
		for _, c := range s.Consumers {
			behind := c.Lag + uint64(c.InFlight)
			grows := (float64(behind) - float64(lag[c.Service])) / seconds
			one.Readers = append(one.Readers, topReader{c.Service, behind, grows, behind >= slowBehind && grows >= 0})
		}
		t.Streams = append(t.Streams, one)
	}
	return t
}

func (t top) text(paint painter) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n\n", paint.bold(t.Project), t.Time.Local().Format("15:04:05"))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tREADY\tIN/s\tOUT/s\tIN\tPARKED\tBUSY\tMEMORY")
	for _, s := range t.Services {
		fmt.Fprintf(w, "%s\t%d/%d\t%.0f\t%.0f\t%s/s\t%d\t%.0f%%\t%s\n", s.Name, s.Ready, s.Scale, s.In, s.Out, size(int64(s.Bytes)), s.Parked, s.Busy*100, size(s.RSS))
	}
	fmt.Fprintln(w, "\nSTREAM\tFRAMES/s\tSTORED\tREADERS")
	for _, s := range t.Streams {
		var readers []string
		for _, r := range s.Readers {
			text := fmt.Sprintf("%s %d", r.Service, r.Behind)
			if r.Slow {
				text += " SLOW"
			}
			readers = append(readers, text)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%s\n", s.Name, s.Frames, size(int64(s.Bytes)), strings.Join(readers, ", "))
	}
	_ = w.Flush() // a strings.Builder takes everything
	if t.Saturated != "" {
		fmt.Fprintf(&b, "\nbottleneck: %s\n", paint.yellow(t.Saturated))
	}
	for _, p := range t.Problems {
		fmt.Fprintf(&b, "\n%s %s [%s]\n", paint.red("problem:"), p.Title, p.Code)
	}
	return b.String()
}
