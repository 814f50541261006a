// Command peer is every Go program of `go run ./bench messaging`: raw nats.go, JetStream, Watermill and Hozo, and the
// servers that they need. It is a module of its own so that Hozo's knows nothing of what only a comparison needs.
//
//	peer CONTENDER ROLE name=value...
//
// With PEER_PROFILE=FOLDER each program leaves its CPU profile there.
//
// A program says "ready" when its peers may begin. One that begins (push, pub, tell, pace, ask) then waits for a line on its
// standard input. Events are numbered from 0; their last 8 bytes are a function of the number. A source sends for ms
// milliseconds, but at most `most` events, and then one that says how many there were; it reports when it began and how
// many it sent. A sink reports when the last one had come, how many different ones came, the sum of their numbers, and
// how many came twice or damaged. Each report is a line of JSON. Every program lives until its standard input ends, so
// that the harness can read its times.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// settings are the arguments of a program.
type settings struct {
	url     string // of the server
	grant   string // file, ours
	dir     string // of a server's store
	in, out string // subjects
	size    int    // of an event, at least 16
	ms      int
	most    uint64
	callers int
	stdin   *bufio.Reader
}

// contenders are the programs by contender and role.
var contenders = map[string]map[string]func(context.Context, settings) error{
	"nats": {
		"server": natsServer, "push": natsPush, "pull": natsPull, "relay": natsRelay, "pub": natsPush, "sub": natsPull,
		"tell": natsPush, "hear": natsPull, "ask": natsAsk, "answer": natsAnswer,
	},
	"jetstream": {
		"server": natsServer, "push": streamPush, "pull": streamPull, "relay": streamRelay, "pub": streamPush, "sub": streamPull,
	},
	"watermill": {"server": natsServer, "push": watermillPush, "pull": watermillPull},
	"hozo": {
		"server": hozoServer, "push": hozoPush, "pull": hozoPull, "relay": hozoRelay, "pub": hozoPush, "sub": hozoPull,
		"push-keyed": hozoPushKeyed, "pull-keyed": hozoPullKeyed, "tell": hozoTell, "hear": hozoHear, "ask": hozoAsk, "answer": hozoAnswer,
		"pace": hozoPace, "clock": hozoClock, "slow": hozoSlow,
	},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", strings.Join(os.Args[1:], " "), err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 || contenders[args[0]][args[1]] == nil {
		return errors.New("no such contender and role")
	}
	s := settings{size: 128, ms: 500, most: mostEvents, callers: 1, stdin: bufio.NewReader(os.Stdin)}
	for _, arg := range args[2:] {
		name, value, _ := strings.Cut(arg, "=")
		number, _ := strconv.Atoi(value) // zero where it is none: the harness writes these
		switch name {
		case "url":
			s.url = value
		case "grant":
			s.grant = value
		case "dir":
			s.dir = value
		case "in":
			s.in = value
		case "out":
			s.out = value
		case "size":
			s.size = number
		case "ms":
			s.ms = number
		case "most":
			s.most = uint64(number)
		case "callers":
			s.callers = number
		}
	}
	stopProfile, err := profile(os.Getenv("PEER_PROFILE"), args)
	if err != nil {
		return err
	}
	defer stopProfile()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	return contenders[args[0]][args[1]](ctx, s)
}

// profile writes where this program spends its time into the folder dir; nothing when dir is empty.
func profile(dir string, args []string) (stop func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	file, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%s.%d.pprof", args[0], args[1], os.Getpid())))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		file.Close()
	}, nil
}

// ready tells the harness that this program is, and what it may want to know.
func ready(words ...string) { fmt.Println(strings.Join(append([]string{"ready"}, words...), " ")) }

func (s settings) awaitGo() error {
	_, err := s.stdin.ReadString('\n')
	return err
}

// rest waits until the harness lets the program end.
func (s settings) rest() error {
	_, err := io.Copy(io.Discard, s.stdin)
	return err
}

func report(r any) error { return json.NewEncoder(os.Stdout).Encode(r) }

// monotonic is a clock that all processes of the machine share, in ns.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("peer: internal error: read the monotonic clock: " + err.Error())
	}
	return t.Nano()
}
