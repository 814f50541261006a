//go:build linux

package keeper_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// roles are what children do. They are programs of their own: they print, exit and wait as such.
func roles() map[string]func(args []string) int {
	return map[string]func([]string) int{
		"keeper":  playKeeper,
		"exit":    func(args []string) int { return number(args[0]) },
		"die":     playDie,
		"wait":    playWait,
		"stem":    playStem,
		"branch":  playBranch,
		"count":   playCount,
		"serve":   playServe,
		"notify":  playNotify,
		"say":     playSay,
		"shouter": playShouter,
		"env":     playEnv,
		"flood":   playFlood,
		"capture": playCapture,
		"drip":    playDrip,
		"tell":    playTell,
		"reuse":   playReuse,
		"pour":    playPour,
		"stamp":   playStamp,
		"mute":    playMute,
		"begin":   playBegin,
		"orderly": playOrderly,
		"deposit": playDeposit,
		"fetch":   playFetch,
		"through": playThrough,
		"daemon":  playDaemon,
		"utter":   playUtter,
		"last":    func(args []string) int { tell(args[0]); return 0 },
		"eat":     playEat,
		"bomb":    playBomb,
		"orphans": playOrphans,
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// playDie ends by a signal.
func playDie(args []string) int {
	if err := syscall.Kill(os.Getpid(), syscall.Signal(number(args[0]))); err != nil {
		panic(err)
	}
	return playWait(nil)
}

// playWait waits until a signal ends it, and says READY if somebody listens.
func playWait([]string) int {
	tell("READY=1")
	return forever()
}

// playServe answers every connection on the inherited socket with what it knows of itself.
func playServe([]string) int {
	l, err := net.FileListener(os.NewFile(3, "inherited"))
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(c, "%d %s %s %s %s\n", os.Getpid(), os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"),
			os.Getenv("LISTEN_FDNAMES"), os.Getenv("PORT"))
		c.Close()
	}
}

// playOrderly is a node that, asked to stop, first ends the process "service". args: the keeper's socket.
func playOrderly(args []string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	tell("READY=1")
	<-term
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := keeper.Dial(ctx, args[0])
	if err == nil {
		err = c.Kill(ctx, "service")
	}
	if err != nil {
		panic(err)
	}
	return 0
}

// playEat takes args[0] MiB of memory and touches it.
func playEat(args []string) int {
	tell("READY=1")
	var all [][]byte
	for range number(args[0]) {
		mib := make([]byte, 1<<20)
		for i := 0; i < len(mib); i += 4096 {
			mib[i] = 1
		}
		all = append(all, mib)
	}
	return len(all) % 2
}

func playEnv([]string) int {
	for _, kv := range os.Environ() {
		fmt.Println(kv)
	}
	return 0
}

// forever outlasts every test. An empty select would end a program without goroutines.
func forever() int {
	<-time.After(time.Hour)
	return 98
}
