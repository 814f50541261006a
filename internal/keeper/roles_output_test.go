//go:build linux

package keeper_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// playCount writes numbered lines. args: how many.
func playCount(args []string) int {
	out := bufio.NewWriterSize(os.Stdout, 5000) // so that writes end within lines
	for i := range number(args[0]) {
		fmt.Fprintf(out, "line %d of a program that counts\n", i)
	}
	if out.Flush() != nil {
		return 1
	}
	return 0
}

// playShouter sends args[0] notifications as fast as it can and waits.
func playShouter(args []string) int {
	for i := range number(args[0]) {
		tell(fmt.Sprintf("STATUS=%d", i))
	}
	tell("READY=1")
	return forever()
}

// playFlood writes args[0] MiB without a line's end.
func playFlood(args []string) int {
	mib := bytes.Repeat([]byte{'x'}, 1<<20)
	for range number(args[0]) {
		if _, err := os.Stdout.Write(mib); err != nil {
			return 1
		}
	}
	return 0
}

// playDrip writes a line every few milliseconds.
func playDrip([]string) int {
	for {
		fmt.Println("drop")
		<-time.After(5 * time.Millisecond)
	}
}

// playTell prints numbered lines as fast as they are taken until the file args[0] appears, or TERM; then it says how many
// it printed in a file beside and ends with status args[1].
func playTell(args []string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	tell("READY=1\nSTATUS=telling")
	for i := 0; ; i++ {
		fmt.Printf("line %d\n", i)
		select {
		case <-term:
			if err := os.WriteFile(args[0], []byte(strconv.Itoa(i+1)), 0o600); err != nil {
				panic(err)
			}
			return number(args[1])
		case <-tick.C:
		}
	}
}

// playPour writes args[0] MB a second in lines, until a signal ends it.
func playPour(args []string) int {
	const perSecond = 200
	chunk := bytes.Repeat([]byte("a line of a program that says a lot, and all of it at the same time\n"), number(args[0])*1_000_000/perSecond/70+1)
	for tick := time.NewTicker(time.Second / perSecond); ; <-tick.C {
		if _, err := os.Stdout.Write(chunk); err != nil {
			return 1
		}
	}
}

// playStamp writes the time in nanoseconds every 10 ms.
func playStamp([]string) int {
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		fmt.Println(time.Now().UnixNano())
	}
}

// playMute closes what its output goes to and waits.
func playMute([]string) int {
	for _, f := range []*os.File{os.Stdout, os.Stderr} {
		if err := f.Close(); err != nil {
			return 1
		}
	}
	tell("READY=1")
	return forever()
}

// playBegin begins a line and waits.
func playBegin([]string) int {
	fmt.Print("begun")
	tell("READY=1")
	return forever()
}

// playUtter notifies and, as systemd-notify does, stays until that was taken: nobody knows whose child a sender was that
// has ended.
func playUtter(args []string) int {
	tell(args[0])
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	pass("BARRIER=1", []int{int(w.Fd())})
	if err := w.Close(); err != nil {
		panic(err)
	}
	_, _ = r.Read(make([]byte, 1)) // its end is the answer
	return 0
}
