// Command sleeper is the role of that name in the tests as a program of its own: without the race detector it starts
// twenty times as fast, and the test of ten thousand operations starts about as many.
package main

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	lock := os.Args[1]
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2)
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		err = errors.Join(err, os.WriteFile(filepath.Join(filepath.Dir(lock), "DOUBLE"), []byte(lock), 0o600))
		panic(err)
	}
	if <-signals == syscall.SIGUSR2 {
		os.Exit(3)
	}
}
