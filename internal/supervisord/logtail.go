//go:build linux

package supervisord

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	// tailHead is how much of a log a follower gets to begin with.
	tailHead = 1024
	// tailLook is how often a follower looks for what somebody else did to the file: moved it away, cut it off, wrote it.
	tailLook = time.Second
	// tailChunk is the most that is sent at once.
	tailChunk = 64 << 10
	// tailWrite is how long a client may take to accept a chunk.
	tailWrite = 30 * time.Second
)

// serveLogtail streams the log of a process: /logtail/NAME, /logtail/NAME/stderr.
func (d *Daemon) serveLogtail(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		httpError(w, http.StatusBadRequest)
		return
	}
	_, rest, _ := strings.Cut(strings.TrimLeft(r.URL.Path, "/"), "/")
	name, channel, found := strings.Cut(rest, "/")
	if !found {
		channel = "stdout"
	}
	res, err := d.ask(r.Context(), func() result {
		_, p, fault := rpc{d}.find(name)
		if fault != nil || p == nil || channel != "stdout" && channel != "stderr" {
			return value("")
		}
		return value(p.group.logPath(p.conf, channel))
	})
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone, or the daemon goes
	}
	path, _ := res.value.(string)
	d.follow(w, r, path)
}

// serveMainLogtail streams the main log.
func (d *Daemon) serveMainLogtail(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		httpError(w, http.StatusBadRequest)
		return
	}
	if d.log.file == nil {
		httpError(w, http.StatusNotFound)
		return
	}
	d.follow(w, r, d.log.file.path)
}

// follow streams a file until the client goes. It takes the connection over: supervisorctl sends a line too many after its
// request, which the HTTP server takes for the next request, and then no longer sees the client go.
func (d *Daemon) follow(w http.ResponseWriter, r *http.Request, path string) {
	t, err := openTail(path)
	if path == "" || err != nil {
		httpError(w, http.StatusNotFound)
		return
	}
	defer t.close()
	d.followers.Add(1) // before the server stops to count the connection as its own
	defer d.followers.Done()
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		httpError(w, http.StatusHTTPVersionNotSupported)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(lastWords)) })()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer cancel()
		_, _ = io.Copy(io.Discard, buf.Reader) // returns when the client goes, or when conn is closed
	}()
	defer func() {
		conn.Close()
		cancel()
		<-watched
	}()
	out := newChunks(conn, r.ProtoAtLeast(1, 1))
	if out.head() == nil {
		d.stream(ctx, t, out)
	}
}

func (d *Daemon) stream(ctx context.Context, t *tail, out *chunks) {
	look := time.NewTicker(tailLook)
	defer look.Stop()
	for {
		grown := d.growth.next(t.path) // before reading, so that nothing written meanwhile is missed
		if err := t.copy(out); err != nil {
			return
		}
		select {
		case <-grown:
		case <-look.C:
		case <-ctx.Done():
			_ = out.end() // the client has gone, or the daemon goes
			return
		}
	}
}

// tail reads what is added to a file.
type tail struct {
	path string
	file *os.File
	at   int64
}

func openTail(path string) (*tail, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &tail{path: path, file: f, at: max(size-tailHead, 0)}, nil
}

func (t *tail) close() { t.file.Close() }

// copy sends what was added, and goes on with the file that has taken the place of this one, if one has.
func (t *tail) copy(out *chunks) error {
	for {
		if err := t.rest(out); err != nil {
			return err
		}
		now, err := os.Stat(t.path)
		if err != nil {
			return nil // moved away; another will come
		}
		mine, err := t.file.Stat()
		if err != nil || os.SameFile(now, mine) {
			return nil
		}
		f, err := os.Open(t.path)
		if err != nil {
			return nil // just moved away
		}
		if err := t.rest(out); err != nil { // what came between the last look and the move
			f.Close()
			return err
		}
		t.file.Close()
		t.file, t.at = f, 0
	}
}

func (t *tail) rest(out *chunks) error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && info.Size() < t.at {
		t.at = 0
		if err := out.write([]byte("==> File truncated <==\n")); err != nil {
			return err
		}
	}
	buf := make([]byte, tailChunk)
	for {
		n, err := t.file.ReadAt(buf, t.at)
		if n > 0 {
			if err := out.write(buf[:n]); err != nil {
				return err
			}
			t.at += int64(n)
		}
		if err != nil || n == 0 {
			return nil // the end, for now
		}
	}
}

// chunks writes a response of unknown length to a connection that was taken over.
type chunks struct {
	conn    net.Conn
	w       *bufio.Writer
	chunked bool
}

func newChunks(conn net.Conn, chunked bool) *chunks {
	return &chunks{conn: conn, w: bufio.NewWriter(conn), chunked: chunked}
}

func (c *chunks) head() error {
	version, coding := "1.0", "Connection: close\r\n"
	if c.chunked {
		version, coding = "1.1", "Transfer-Encoding: chunked\r\n"
	}
	fmt.Fprintf(c.w, "HTTP/%s 200 OK\r\nContent-Type: text/plain;charset=utf-8\r\nX-Accel-Buffering: no\r\n%sDate: %s\r\n\r\n",
		version, coding, time.Now().UTC().Format(http.TimeFormat))
	return c.flush()
}

func (c *chunks) write(data []byte) error {
	if !c.chunked {
		_, _ = c.w.Write(data) // flush gives the error
		return c.flush()
	}
	fmt.Fprintf(c.w, "%x\r\n", len(data))
	_, _ = c.w.Write(data) // flush gives the error
	_, _ = c.w.WriteString("\r\n")
	return c.flush()
}

func (c *chunks) end() error {
	if c.chunked {
		_, _ = c.w.WriteString("0\r\n\r\n") // flush gives the error
	}
	return c.flush()
}

func (c *chunks) flush() error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(tailWrite)); err != nil {
		return err
	}
	return c.w.Flush()
}
