package supervisor_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// check is a probe program: it succeeds while the file args[0] is there. With more arguments it hangs otherwise, and so
// does a child of its own.
func check(args []string) error {
	if _, err := os.Stat(args[0]); err == nil {
		return nil
	}
	if len(args) > 1 {
		return stubborn(args[1])
	}
	fmt.Println("looking for the gate")
	return errors.New("the gate is closed")
}

// rpc is a real gRPC server on the inherited socket. Its service "my.Service" is healthy while told so on the pipe
// args[0]: each line is one of the states.
func rpc(args []string) error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	server, states := grpc.NewServer(), health.NewServer()
	if args[0] != "" {
		grpc_health_v1.RegisterHealthServer(server, states)
	}
	states.SetServingStatus("my.Service", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if args[0] != "" {
		pipe, err := os.OpenFile(args[0], os.O_RDWR, 0) // never at its end
		if err != nil {
			return err
		}
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			states.SetServingStatus("my.Service", grpc_health_v1.HealthCheckResponse_ServingStatus(grpc_health_v1.HealthCheckResponse_ServingStatus_value[lines.Text()]))
		}
	}
	return <-served
}

// talker does what it reads from the pipe TALKER_PIPE, line by line: "say X" sends X to NOTIFY_SOCKET, its lines parted
// by semicolons, "print X" prints it and "exit N" exits. TERM and ABRT end it.
func talker() error {
	pipe, err := os.OpenFile(os.Getenv("TALKER_PIPE"), os.O_RDWR, 0) // never at its end
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		verb, text, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "say":
			if err := say(strings.ReplaceAll(text, ";", "\n")); err != nil {
				return err
			}
		case "print":
			fmt.Println(text)
		case "exit":
			return exit(text)
		}
	}
	return errors.New("the pipe has ended")
}

func say(text string) error {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(text))
	return err
}

// store gives a file to the keeper as "kept" and waits until that is done.
func store(socket string) error {
	f, err := os.CreateTemp("", "kept")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	c, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := &syscall.SockaddrUnix{Name: socket}
	if err := syscall.Sendmsg(c, []byte("FDSTORE=1\nFDNAME=kept"), syscall.UnixRights(int(f.Fd())), to, 0); err != nil {
		return err
	}
	if err := syscall.Sendmsg(c, []byte("BARRIER=1"), syscall.UnixRights(int(w.Fd())), to, 0); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, _ = r.Read(make([]byte, 1)) // the end of the pipe is the answer
	return nil
}

// asChild runs a role as a process of a run's tree.
func (w *world) asChild(run, role string, args ...string) error {
	cmd := exec.Command(w.self, append([]string{role}, args...)...)
	cmd.Env = append(os.Environ(), quickExit, "HOZO_RUN="+run)
	return cmd.Run()
}
