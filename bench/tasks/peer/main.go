// Command peer is every Go program of `go run ./bench tasks`: asynq, River, raw JetStream and Hozo, and the servers that
// the last two need. It is a module of its own so that Hozo's knows nothing of what only a comparison needs.
//
//	peer CONTENDER ROLE name=value...
//
// The roles are server, produce, work and, of some, many and batch. A program says "ready" when it is and a producer then
// waits for a line on its standard input. Tasks are numbered from 0 to n-1. A producer reports when it began, when all
// were stored, and how many; with rate it enqueues so many a second, whatever becomes of them. A worker reports when its
// first and its last task came, how many different ones, the sum of their numbers, how many came twice, and how long
// tasks took from the call that enqueued them to their handler. Each report is a line of JSON. Every program lives until
// its standard input ends. With PEER_PROFILE=FOLDER it leaves its CPU profile there.
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
	"time"
)

// settings are the arguments of a program.
type settings struct {
	url      string // of the server
	dir      string // of a server's store
	n        uint64 // tasks
	rate     int    // tasks a second; 0: as fast as they go
	busy     time.Duration
	parallel int // handlers, or goroutines that enqueue
	power    bool
	stdin    *bufio.Reader
}

type program func(context.Context, settings) error

// contenders are the programs by contender and role.
var contenders = map[string]map[string]program{
	"asynq":     {"produce": asynqProduce, "work": asynqWork},
	"river":     {"server": riverSchema, "produce": riverProduce, "work": riverWork},
	"jetstream": {"server": natsServer, "produce": streamProduce, "work": streamWork},
	"hozo":      {"server": hozoServer, "produce": hozoProduce, "work": hozoWork, "many": hozoMany, "batch": hozoBatch},
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
	s := settings{url: os.Getenv("PEER_URL"), n: 1, parallel: 64, stdin: bufio.NewReader(os.Stdin)}
	for _, arg := range args[2:] {
		name, value, _ := strings.Cut(arg, "=")
		number, _ := strconv.Atoi(value) // zero where it is none: the harness writes these
		switch name {
		case "url":
			s.url = value
		case "dir":
			s.dir = value
		case "n":
			s.n = uint64(max(number, 1))
		case "rate":
			s.rate = number
		case "us":
			s.busy = time.Duration(number) * time.Microsecond
		case "parallel":
			s.parallel = number
		case "power":
			s.power = number > 0
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
