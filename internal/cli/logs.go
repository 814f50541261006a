package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/logfile"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/plan"
)

// logsOptions says what of the logs is shown. The zero value is everything there is.
type logsOptions struct {
	names  []string // services or instances; empty: all
	follow bool
	tail   bool // show only the last lines of the past
	lines  int
	since  time.Time // zero: from the beginning
	until  time.Time // zero: to the end
	grep   *regexp.Regexp
	invert bool
	times  bool
}

func newLogs(o *options) *cobra.Command {
	var opts logsOptions
	var since, until, grep string
	var rotate bool
	cmd := &cobra.Command{
		Use:   "logs [SERVICE|INSTANCE…]",
		Short: "Show the output of services",
		Long: `Show the output of services, merged in the order of time: the last 50 lines of each instance, or everything that
--since, --until and --grep choose. Rotated and compressed logs are read as well, and a log can be read when nothing runs.

Times are those of capture, told to 100 ms (coarser in a file that output flowed into for hours without a pause): a line
may have been written up to that much later than its time says. A line longer than 64 KiB comes in pieces.`,
		Example: `  hozo logs -f api             follow all instances of api
  hozo logs --since 10m        what all services said in the last ten minutes
  hozo logs api.1 -n 1000 --grep 'error|timeout' --json
  hozo logs --rotate api       begin new log files now`,
		ValidArgsFunction: o.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.names = args
			if rotate {
				return o.rotateLogs(cmd.Context(), args)
			}
			now := time.Now()
			var err error
			if opts.since, err = parseTime(cmd, "since", since, now); err != nil {
				return err
			}
			if opts.until, err = parseTime(cmd, "until", until, now); err != nil {
				return err
			}
			if grep != "" {
				if opts.grep, err = regexp.Compile(grep); err != nil {
					return misuse(cmd, fmt.Errorf("--grep: %w", err))
				}
			}
			switch {
			case opts.invert && grep == "":
				return misuse(cmd, fmt.Errorf("--invert-match without --grep"))
			case opts.follow && until != "":
				return misuse(cmd, fmt.Errorf("--follow has no end, so --until makes no sense"))
			case opts.lines < 0:
				return misuse(cmd, fmt.Errorf("--lines %d is negative", opts.lines))
			}
			opts.tail = cmd.Flags().Changed("lines") || since == "" && until == "" && grep == ""
			return o.showLogs(cmd.Context(), opts)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&opts.follow, "follow", "f", false, "go on as more is written, across rotations and restarts")
	flags.IntVarP(&opts.lines, "lines", "n", 50, "lines of the past that are looked at, of each instance; all with --since, --until or --grep")
	flags.StringVar(&since, "since", "", "from a time on: 10m or 2d ago, 2006-01-02T15:04:05Z, '2006-01-02 15:04:05' or 2006-01-02 here")
	flags.StringVar(&until, "until", "", "up to a time, written as for --since")
	flags.StringVar(&grep, "grep", "", "lines that match a regular expression")
	flags.BoolVarP(&opts.invert, "invert-match", "v", false, "lines that do not match --grep")
	flags.BoolVarP(&opts.times, "timestamps", "t", false, "show the time of each line")
	flags.BoolVar(&rotate, "rotate", false, "begin a new file of each log instead, at the end of a line")
	return o.jsonFlag(cmd)
}

// parseTime reads a time, or how long ago it was.
func parseTime(cmd *cobra.Command, flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	rest, days := text, 0
	if number, after, found := strings.Cut(text, "d"); found {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			rest, days = after, int(n)
		}
	}
	ago, err := time.ParseDuration(rest)
	if rest == "" && days > 0 {
		err = nil
	}
	if err == nil && ago >= 0 {
		return now.Add(-ago - time.Duration(days)*24*time.Hour), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, misuse(cmd, fmt.Errorf("--%s: %q is no time: write 10m, 2d, 2006-01-02T15:04:05Z, '2006-01-02 15:04:05' or 2006-01-02", flag, text))
}

// logOf is the log of an instance.
type logOf struct{ name, path string }

// findLogs returns the logs that names choose, of services, instances or parts of the platform; all services' without
// names. When nothing runs it goes by the files.
func (o *options) findLogs(ctx context.Context, names []string) ([]logOf, error) {
	state, err := o.stateDir()
	if err != nil {
		return nil, err
	}
	var found []logOf
	matched := map[string]bool{}
	consider := func(service, name, path string) {
		if len(names) > 0 && !slices.Contains(names, service) && !slices.Contains(names, name) {
			return
		}
		matched[service], matched[name] = true, true
		found = append(found, logOf{name, path})
	}
	s, err := node.NewClient(state).Status(ctx)
	switch {
	case err == nil:
		for _, service := range s.Services {
			for _, i := range service.Instances {
				consider(service.Name, i.Name, i.Log)
				beside, _ := filepath.Glob(filepath.Join(filepath.Dir(i.Log), i.Name+"@*.log")) // hooks, overlapping runs; the pattern is sound
				for _, path := range beside {
					consider(service.Name, strings.TrimSuffix(filepath.Base(path), ".log"), path)
				}
			}
		}
	case fault.Code(err) == "node/not-running":
		paths, globErr := filepath.Glob(filepath.Join(state, "logs", "*.log*")) // the log itself may be rotated away
		if globErr != nil || len(paths) == 0 {
			return nil, err
		}
		seen := map[string]bool{}
		for _, path := range paths {
			name, _, _ := strings.Cut(filepath.Base(path), ".log")
			if seen[name] {
				continue
			}
			seen[name] = true
			path = filepath.Join(state, "logs", name+".log")
			if i := strings.LastIndexByte(name, '.'); i > 0 {
				consider(name[:i], name, path)
			}
		}
	default:
		return nil, err
	}
	for _, name := range names {
		path := filepath.Join(state, "logs", name+".log")
		if matched[name] {
			continue
		}
		if _, err := os.Stat(path); err == nil && slices.Contains([]string{"broker", "node", "keeper"}, name) {
			found = append(found, logOf{name, path})
			continue
		}
		return nil, &fault.Error{Code: "logs/unknown", Kind: fault.Misuse, What: "nothing is called " + name, Fix: "`hozo ps` lists the names"}
	}
	return found, nil
}

// rotateLogs begins new files of the chosen logs.
func (o *options) rotateLogs(ctx context.Context, names []string) error {
	logs, err := o.findLogs(ctx, names)
	if err != nil {
		return err
	}
	state, err := o.stateDir()
	if err != nil {
		return err
	}
	client, err := keeper.Dial(ctx, keeper.SocketPath(state))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, l := range logs {
		// A process of either name may write it, or two for a while.
		for _, process := range []string{l.name, plan.OtherName(l.name)} {
			err := client.Rotate(ctx, process)
			if fault.Code(err) == "keeper/no-process" || fault.Code(err) == "keeper/not-rotated" && process != l.name {
				continue // it has not been started, or has ended
			}
			if err != nil {
				return fmt.Errorf("rotate log of %s: %w", l.name, err)
			}
			o.say("rotated the log of %s", l.name)
			break
		}
	}
	return nil
}

// tailFile returns the last n lines of the log at path, or "" when it cannot be read.
func tailFile(path string, n int) string {
	r, err := logfile.NewReader(path)
	if err != nil {
		return ""
	}
	defer r.Close()
	if err := r.Tail(n); err != nil {
		return ""
	}
	var lines []string
	for {
		line, ok, err := r.Next()
		if !ok && err == nil {
			line, ok = r.Rest()
		}
		if !ok {
			return strings.Join(lines, "\n")
		}
		lines = append(lines, string(line.Text))
	}
}
