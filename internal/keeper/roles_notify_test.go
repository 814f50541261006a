//go:build linux

package keeper_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

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
