package hozo_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

func TestPlainHTTPProgramNeedsNoPlatform(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close() // free again, most likely
	child := testkit.Start(t, "http", "PORT="+port, "HOZO_GRANT=", "LISTEN_FDS=")
	testkit.Eventually(t, func() bool {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://127.0.0.1:" + port + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, "the program is ready")
	if _, body := get(t, "http://127.0.0.1:"+port); !strings.HasSuffix(body, "hello") {
		t.Errorf("it said %q", body)
	}
	child.Signal(t, syscall.SIGTERM)
	testkit.Wait(t, child.Done)
	if err := child.Err(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func TestSecondSignalEndsTheProcessAtOnce(t *testing.T) {
	t.Parallel()
	child := testkit.Start(t, "stubborn", "HOZO_GRANT=")
	testkit.Eventually(t, func() bool { return strings.Contains(child.Output(), "up") }, "the program is up")
	child.Signal(t, syscall.SIGTERM)
	testkit.Eventually(t, func() bool { return strings.Contains(child.Output(), "service is stopping") }, "it has heard")
	begin := time.Now()
	child.Signal(t, syscall.SIGINT)
	testkit.Wait(t, child.Done)
	if got := exitCode(t, child.Err()); got != 1 {
		t.Errorf("exit status %d", got)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestMainSaysWhatIsWrongAndHowToFixIt(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		says   []string
	}{
		"nothing": {2, []string{"error: the service has no parts [hozo/no-parts]", "  fix: give hozo.Main something to run"}},
		"stage":   {1, []string{"started without a Hozo platform [bus/no-platform]", "  fix: name it under services in hozo.yaml"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := testkit.Start(t, name, "HOZO_GRANT=", "HOZO_BUS=")
			testkit.Wait(t, child.Done)
			if got := exitCode(t, child.Err()); got != test.status {
				t.Errorf("exit status %d, want %d", got, test.status)
			}
			for _, line := range test.says {
				if !strings.Contains(child.Output(), line) {
					t.Errorf("standard error lacks %q:\n%s", line, child.Output())
				}
			}
		})
	}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("the child ended with %v", err)
	}
	return exit.ExitCode()
}

// raw connection: a test speaks HTTP itself, without a client that repeats requests.
type rawConn struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, url string) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &rawConn{conn, bufio.NewReader(conn)}
}

func (c *rawConn) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		t.Fatal(err)
	}
}

func (c *rawConn) response(t *testing.T) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// isolated is a service whose tasks are done in child processes.
func isolated() {
	kind := task.NewResultKind[order, int](packing.Name(), task.Config{})
	hozo.Main(
		hozo.HTTP(http.HandlerFunc(hello)), // a child that served it, too, would find the port taken
		hozo.Func("shop", func(ctx context.Context, s *hozo.Service) error {
			if task.IsolatedKind() == "" {
				h, err := kind.Enqueue(ctx, s.Conn(), order{"tea"})
				if err != nil {
					return err
				}
				pid, err := h.Wait(ctx)
				if err != nil {
					return err
				}
				fmt.Println("packed in another process:", pid != os.Getpid())
			}
			<-ctx.Done()
			return nil
		}),
		hozo.HandleResult(kind, func(context.Context, task.Task[order]) (int, error) { return os.Getpid(), nil }, task.WorkerConfig{Isolate: &task.Isolation{}}),
	)
}

func TestIsolatedTasksAreDoneByTheSameProgramInAnotherProcess(t *testing.T) {
	platform(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close() // free again, most likely
	child := testkit.Start(t, "isolated", "PORT="+port, "LISTEN_FDS=")
	testkit.Eventually(t, func() bool { return strings.Contains(child.Output(), "packed in another process: true") }, "the task is done")
	child.Signal(t, syscall.SIGTERM)
	testkit.Wait(t, child.Done)
	if err := child.Err(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
