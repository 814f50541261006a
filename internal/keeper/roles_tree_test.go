//go:build linux

package keeper_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

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
