package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// TestMain also is every process that the tests need: the keeper, its shim, and the programs that it keeps.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		roles := map[string]func(args []string) error{
			keeper.ShimCommand: func(args []string) error { return keeper.ExecShim(args, os.Environ()) },
			"keeper":           runKeeper,
			"sleeper":          func(args []string) error { return sleeper(args[0]) },
			"stubborn":         func(args []string) error { return stubborn(args[0]) },
			"exit":             func(args []string) error { return exit(args[0]) },
			"failing":          func([]string) error { return errors.New("failing as told") },
			"web":              func(args []string) error { return serveHealth(args[0]) },
			"notifier":         notifier,
			"server":           server,
			"double":           double,
			"gated":            gated,
			"check":            func(args []string) error { return check(args) },
			"rpc":              rpc,
			"store":            func(args []string) error { return store(args[0]) },
			"talker":           func([]string) error { return talker() },

			"glutton": glutton,
			"append":  appendLine,
		}
		if role := roles[os.Args[1]]; role != nil {
			if err := role(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	testkit.EndAtOnce()
	goleak.VerifyTestMain(m)
}

func runKeeper(args []string) error {
	k, err := keeper.New(keeper.Config{State: args[0]})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		select {
		case <-k.Ready():
			fmt.Println("ready")
		case <-ctx.Done():
		}
	})
	defer cancel()
	return k.Run(ctx)
}

// sleeper runs until TERM. It leaves a file DOUBLE beside its lock file when it finds another holder of the lock, and
// ends with status 3 on USR2.
func sleeper(lock string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2)
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(err, os.WriteFile(filepath.Join(filepath.Dir(lock), "DOUBLE"), []byte(lock), 0o600))
	}
	if err := os.WriteFile(lock+".up", []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	if <-signals == syscall.SIGUSR2 {
		os.Exit(3)
	}
	return nil
}

// stubborn ignores TERM, and so does the child that it makes.
func stubborn(pidFile string) error {
	signal.Ignore(syscall.SIGTERM)
	if pidFile != "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		child := exec.Command(self, "stubborn", "")
		if err := child.Start(); err != nil {
			return err
		}
		content := fmt.Sprintf("%d %d", os.Getpid(), child.Process.Pid)
		if err := os.WriteFile(pidFile+".tmp", []byte(content), 0o600); err != nil {
			return err
		}
		if err := os.Rename(pidFile+".tmp", pidFile); err != nil {
			return err
		}
	}
	select {}
}

// gated runs like a sleeper if the file args[1] is there, else it fails.
func gated(args []string) error {
	if _, err := os.Stat(args[1]); err != nil {
		return err
	}
	return sleeper(args[0])
}

// glutton takes memory until it is killed, or has a gibibyte.
func glutton([]string) error {
	var all [][]byte
	for range 1024 {
		mib := make([]byte, 1<<20)
		for i := 0; i < len(mib); i += 4096 {
			mib[i] = 1
		}
		all = append(all, mib)
	}
	return fmt.Errorf("it could have %d MiB", len(all))
}

// appendLine adds a line to a file that says what it is run for, and then ends with a status, or as a sleeper of a lock.
func appendLine(args []string) error {
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s%s\n", os.Getenv("HOZO_TICK"), os.Getenv("HOZO_HOOK"))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if len(args) > 2 {
		return sleeper(args[2])
	}
	return exit(args[1])
}

func exit(code string) error {
	n, err := strconv.Atoi(code)
	if err != nil {
		return err
	}
	os.Exit(n)
	return nil
}

// serveHealth serves the inherited socket: 200 while the gate file is there, 500 when it says sick, else 503. Each 503 adds
// a byte to the file gate.asked.
func serveHealth(gate string) error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(gate)
		switch {
		case err != nil:
			asked, err := os.OpenFile(gate+".asked", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err == nil {
				_, err = asked.WriteString("x")
				err = errors.Join(err, asked.Close())
			}
			http.Error(w, fmt.Sprintf("the gate is closed (%v)", err), http.StatusServiceUnavailable)
		case string(text) == "sick":
			http.Error(w, "it is sick", http.StatusInternalServerError)
		}
	}))
}

// server is a program that can serve its inherited socket: ready, by READY=1, once the file of its first argument is
// there, as /healthz says, too. Each TERM is a line in the file of its second argument; it ends when the file of its
// third is there.
func server(args []string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM)
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	isOpen := func(gate string) bool { _, err := os.Stat(gate); return err == nil }
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !isOpen(args[0]) {
				http.Error(w, "the gate is closed", http.StatusServiceUnavailable)
				return
			}
			fmt.Fprint(w, os.Getpid())
		}))
	})
	defer l.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ready, asked := false, false
	for !asked || !isOpen(args[2]) {
		select {
		case <-signals:
			asked = true
			f, err := os.OpenFile(args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
		case <-tick.C:
		}
		if !ready && isOpen(args[0]) {
			ready = true
			conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
			if err != nil {
				return err
			}
			if _, err := conn.Write([]byte("READY=1")); err != nil {
				return err
			}
			if err := conn.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// double runs until TERM, as sleeper does, and minds only a third one of its kind.
func double(args []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2)
	for _, lock := range []string{args[0] + ".a", args[0] + ".b"} {
		f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			continue
		}
		conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("READY=1")); err != nil {
			return err
		}
		if <-signals == syscall.SIGUSR2 {
			os.Exit(3)
		}
		return nil
	}
	return os.WriteFile(filepath.Join(filepath.Dir(args[0]), "TRIPLE"), []byte(args[0]), 0o600)
}

// notifier says that it is ready when the pipe that it is given is opened for writing.
func notifier(args []string) error {
	gate, err := os.OpenFile(args[0], os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer gate.Close()
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte("READY=1\nSTATUS=at work")); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	return nil
}
