//go:build linux

package keeper_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
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

// playStem is the leader of a family. args: a folder where each member writes its pid, then "stay", "leave" or "leave-bare".
func playStem(args []string) int {
	mark(args[0], "stem")
	branch := func(kind string, sys *syscall.SysProcAttr, env []string) {
		cmd := exec.Command(self(), args[0], kind)
		cmd.Env, cmd.SysProcAttr, cmd.Stdout = env, sys, os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
	}
	run := roleOf("branch", "HOZO_RUN="+os.Getenv("HOZO_RUN"))
	branch("group", nil, run)
	branch("session", &syscall.SysProcAttr{Setsid: true}, run)
	branch("double", &syscall.SysProcAttr{Setsid: true}, run)
	members := 4 // stem, group, session, and the one that double leaves
	if args[1] != "leave" {
		branch("bare", &syscall.SysProcAttr{Setsid: true}, roleOf("branch")) // nothing of its environment tells
		members++
	}
	for len(marks(args[0])) < members {
		<-time.After(time.Millisecond) // the members are other processes
	}
	tell("READY=1")
	if args[1] != "stay" {
		return 3
	}
	return forever()
}

// playBranch ignores every polite signal. args: the folder, the kind.
func playBranch(args []string) int {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if args[1] == "double" {
		cmd := exec.Command(self(), args[0], "orphan")
		cmd.Env, cmd.SysProcAttr, cmd.Stdout = os.Environ(), &syscall.SysProcAttr{Setsid: true}, os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		return 0
	}
	mark(args[0], args[1])
	return forever()
}

// mark leaves the pid and start time of this process in a folder.
func mark(dir, name string) {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", []byte(birth(os.Getpid())), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		panic(err)
	}
}

// marks returns the contents of a folder's marks.
func marks(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		panic(err)
	}
	var all []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".new") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			panic(err)
		}
		all = append(all, string(data))
	}
	return all
}

// birth is "pid start-time", or "" when there is no such process or it is a zombie.
func birth(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if string(fields[0]) == "Z" {
		return ""
	}
	return fmt.Sprintf("%d %s", pid, fields[19])
}

// lives says whether the process of a mark does.
func lives(mark string) bool {
	pid, _, _ := strings.Cut(mark, " ")
	return birth(number(pid)) == mark
}

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

// playNotify sends its arguments as notifications and waits.
func playNotify(args []string) int {
	for _, text := range args {
		tell(text)
	}
	return forever()
}

// playSay sends args[1] to the socket args[0] once.
func playSay(args []string) int {
	if err := send(args[0], args[1]); err != nil {
		panic(err)
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

// playBomb starts processes until it may not, and says how many there are.
func playBomb([]string) int {
	for n := 0; ; n++ {
		if err := exec.Command("/bin/sleep", "1000").Start(); err != nil {
			tell(fmt.Sprintf("READY=1\nSTATUS=%d", n))
			return forever()
		}
	}
}

// playOrphans leaves args[0] children behind, dead or alive, and ends with args[1].
func playOrphans(args []string) int {
	for range number(args[0]) {
		if _, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{}); err != nil {
			panic(err)
		}
	}
	return number(args[1])
}

func playEnv([]string) int {
	for _, kv := range os.Environ() {
		fmt.Println(kv)
	}
	return 0
}

func tell(text string) {
	if path := os.Getenv("NOTIFY_SOCKET"); path != "" {
		if err := send(path, text); err != nil {
			panic(err)
		}
	}
}

func send(path, text string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(text))
	return err
}

// forever outlasts every test. An empty select would end a program without goroutines.
func forever() int {
	<-time.After(time.Hour)
	return 98
}

// playDeposit gives files to the keeper. args: the text that they hold, how many (0: the read end of a pipe whose write
// end it closes at "close"), further lines of the notification.
func playDeposit(args []string) int {
	var files []*os.File
	for range number(args[1]) {
		f, err := os.CreateTemp("", "deposit")
		if err == nil {
			_, err = f.WriteString(args[0])
		}
		if err == nil {
			err = os.Remove(f.Name())
		}
		if err != nil {
			panic(err)
		}
		files = append(files, f)
	}
	var end *os.File
	if len(files) == 0 {
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		files, end = []*os.File{r}, w
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	pass("FDSTORE=1\n"+strings.Join(args[2:], "\n"), fds)
	if end != nil {
		if err := end.Close(); err != nil {
			panic(err)
		}
	}
	return forever()
}

func pass(text string, fds []int) {
	c, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Sendmsg(c, []byte(text), syscall.UnixRights(fds...), &syscall.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, 0)
	}
	if err != nil {
		panic(err)
	}
}

// playFetch prints what it is told of its inherited files, and what they hold.
func playFetch([]string) int {
	fmt.Println("pid", os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()), "names", os.Getenv("LISTEN_FDNAMES"))
	if os.Getenv("LISTEN_FDS") == "" {
		return 0
	}
	for i := range number(os.Getenv("LISTEN_FDS")) {
		text := make([]byte, 100)
		n, err := os.NewFile(uintptr(3+i), "inherited").ReadAt(text, 0)
		fmt.Printf("%d %s %v\n", i, text[:n], err)
	}
	return 0
}

// playThrough notifies through a child. args: what the leader says first, what the child says, what the leader says then.
func playThrough(args []string) int {
	tell(args[0])
	child := exec.Command(self(), args[1])
	child.Env = roleOf("utter", "NOTIFY_SOCKET="+os.Getenv("NOTIFY_SOCKET"))
	if err := child.Run(); err != nil {
		panic(err)
	}
	tell(args[2])
	return forever()
}

// playDaemon forks, names its child as the main process, and exits. args: the status with which the child ends on USR1.
func playDaemon(args []string) int {
	if len(args) > 1 {
		usr := make(chan os.Signal, 1)
		signal.Notify(usr, syscall.SIGUSR1)
		tell("READY=1")
		<-usr
		return number(args[0])
	}
	child := exec.Command(self(), args[0], "child")
	child.Env, child.Stdout = append(os.Environ(), roleVar+"=daemon"), os.Stdout
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		panic(err)
	}
	tell(fmt.Sprintf("MAINPID=%d", child.Process.Pid))
	return 0
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
