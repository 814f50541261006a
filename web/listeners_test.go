package web_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/web"
)

// start starts a serverChild that inherits two sockets, as the keeper does, and waits until it answers.
func start(t *testing.T, sockets ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := testkit.Command(t, "server", "LISTEN_FDS=2", "LISTEN_FDNAMES=svc.other:svc.http", "SOCKET=http")
	cmd.ExtraFiles = sockets
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a child that the test has waited for is not touched again
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func socketFile(t *testing.T) (*os.File, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // the file keeps the socket open, as the keeper does
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file, ln.Addr().String()
}

func TestRestartOnInheritedSocketRefusesNoConnection(t *testing.T) {
	t.Parallel()
	other, _ := socketFile(t)
	file, addr := socketFile(t)
	pid := func() string {
		transport := &http.Transport{DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: transport}).Get("http://" + addr)
		if err != nil {
			t.Fatalf("a connection was refused: %v", err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	first := start(t, other, file)
	if got := pid(); got != strconv.Itoa(first.Process.Pid) {
		t.Fatalf("answered by %s, not by the first child %d", got, first.Process.Pid)
	}
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Fatalf("the first child: %v", err)
	}
	// Nobody runs now: the connection waits in the socket that the parent holds.
	waiting := dial(t, addr)
	waiting.send(t, "GET / HTTP/1.1\nHost: x\n\n")
	second := start(t, other, file)
	if _, got := waiting.response(t); got != strconv.Itoa(second.Process.Pid) {
		t.Errorf("the waiting connection was answered by %s, not by the second child %d", got, second.Process.Pid)
	}
	if got := pid(); got != strconv.Itoa(second.Process.Pid) {
		t.Errorf("answered by %s, not by the second child %d", got, second.Process.Pid)
	}
}

func TestRollingRestartUnderLoadLosesNoRequest(t *testing.T) {
	t.Parallel()
	other, _ := socketFile(t)
	file, addr := socketFile(t)
	child := start(t, other, file)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var answered atomic.Int64
	progress := make(chan struct{}, 1)
	for range 4 {
		clients.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for ctx.Err() == nil {
				// POST, because a client repeats a failed GET by itself.
				resp, err := client.Post("http://"+addr, "text/plain", strings.NewReader("x"))
				if err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("status %d, %v", resp.StatusCode, err)
					return
				}
				answered.Add(1)
				select {
				case progress <- struct{}{}:
				default:
				}
			}
		})
	}
	defer clients.Wait()
	defer stop()
	for range 3 {
		for range 100 {
			testkit.Wait(t, progress)
		}
		if err := child.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); err != nil {
			t.Fatal(err)
		}
		child = start(t, other, file)
	}
	for range 100 {
		testkit.Wait(t, progress)
	}
	t.Logf("%d requests over 3 restarts", answered.Load())
}

// The following tests set the environment of the process, so they do not run in parallel.

func TestNewSaysWhereItCannotListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	tests := map[string]struct {
		fds, port, name, code string
	}{
		"nothing":      {code: "web/no-listener"},
		"no number":    {fds: "many", code: "web/listen-fds"},
		"too many":     {fds: "1000", code: "web/listen-fds"},
		"unknown name": {fds: "1", name: "admin", code: "web/no-socket"},
		"bad port":     {port: "http", code: "web/bad-port"},
		"large port":   {port: "70000", code: "web/bad-port"},
		"taken port":   {port: port, code: "web/listen"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LISTEN_FDS", test.fds)
			t.Setenv("LISTEN_PID", "")
			t.Setenv("PORT", test.port)
			_, err := web.New(http.NotFoundHandler(), web.Config{Name: test.name})
			if fault.Code(err) != test.code {
				t.Errorf("New = %v, want %s", err, test.code)
			}
		})
	}
}

func TestSocketsOfAnotherProcessAreLeftAlone(t *testing.T) {
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	all, err := web.Listeners()
	if err != nil || len(all) != 0 {
		t.Errorf("Listeners = %v, %v", all, err)
	}
	t.Setenv("PORT", "0")
	s, err := web.New(http.NotFoundHandler(), web.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.HasPrefix(s.Addr().String(), "127.0.0.1:") {
		t.Errorf("listens on %s, beyond loopback", s.Addr())
	}
}
