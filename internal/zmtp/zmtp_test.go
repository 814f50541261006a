package zmtp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/zmtp"
)

// wireConn gives the bytes of in, then the end, and keeps what is written.
type wireConn struct {
	in  io.Reader
	out bytes.Buffer
}

func (w *wireConn) Read(b []byte) (int, error)       { return w.in.Read(b) }
func (w *wireConn) Write(b []byte) (int, error)      { return w.out.Write(b) }
func (w *wireConn) Close() error                     { return nil }
func (w *wireConn) LocalAddr() net.Addr              { return nil }
func (w *wireConn) RemoteAddr() net.Addr             { return nil }
func (w *wireConn) SetDeadline(time.Time) error      { return nil }
func (w *wireConn) SetReadDeadline(time.Time) error  { return nil }
func (w *wireConn) SetWriteDeadline(time.Time) error { return nil }

func greeting(minor byte, mechanism string) string {
	g := make([]byte, 64)
	g[0], g[9], g[10], g[11] = 0xff, 0x7f, 3, minor
	copy(g[12:32], mechanism)
	return string(g)
}

func command(name, body string) string {
	size := 1 + len(name) + len(body)
	head := []byte{4, byte(size)}
	if size > 255 {
		head = binary.BigEndian.AppendUint64([]byte{6}, uint64(size))
	}
	return string(head) + string([]byte{byte(len(name))}) + name + body
}

func property(name, value string) string {
	return string([]byte{byte(len(name))}) + name + string(binary.BigEndian.AppendUint32(nil, uint32(len(value)))) + value
}

func hello(socketType string) string {
	return greeting(1, "NULL") + command("READY", property("Socket-Type", socketType)+property("Identity", ""))
}

func message(parts ...string) string {
	var all [][]byte
	for _, p := range parts {
		all = append(all, []byte(p))
	}
	return string(zmtp.AppendMessage(nil, all...))
}

func accept(cfg zmtp.Config, in string) (*zmtp.Conn, *wireConn, error) {
	w := &wireConn{in: strings.NewReader(in)}
	c, err := zmtp.Accept(w, cfg)
	return c, w, err
}

func TestMessagesOfAllSizesArriveWhole(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	want := [][]string{{"a"}, {""}, {"a", "", "b"}, {strings.Repeat("y", 255)}, {strings.Repeat("z", 256), long}}
	in := hello("PUSH")
	for _, parts := range want {
		in += message(parts...)
	}
	c, _, err := accept(zmtp.Config{Type: zmtp.Pull}, in)
	if err != nil {
		t.Fatal(err)
	}
	var m zmtp.Message
	for _, parts := range want {
		if sub, err := c.ReadMessage(&m); err != nil || sub != nil {
			t.Fatalf("%v %v", sub, err)
		}
		var got []string
		for i := range m.Len() {
			got = append(got, string(m.Part(i)))
		}
		if !slices.Equal(got, parts) {
			t.Fatalf("got %d parts %.40q", len(got), got)
		}
	}
	if c.Buffered() {
		t.Error("something is said to be buffered after the last message")
	}
	if _, err := c.ReadMessage(&m); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last message: %v", err)
	}
}

func TestPingIsAnsweredWithItsContext(t *testing.T) {
	t.Parallel()
	c, w, err := accept(zmtp.Config{Type: zmtp.Pull}, hello("PUSH")+command("PING", "\x00\x0actx")+message("after"))
	if err != nil {
		t.Fatal(err)
	}
	w.out.Reset()
	var m zmtp.Message
	if _, err := c.ReadMessage(&m); err != nil || string(m.Part(0)) != "after" {
		t.Fatalf("%v", err)
	}
	if got := w.out.String(); got != command("PONG", "ctx") {
		t.Errorf("answered %q", got)
	}
}

func TestSubscriptionsOfBothVersions(t *testing.T) {
	t.Parallel()
	c, _, err := accept(zmtp.Config{Type: zmtp.Pub}, hello("SUB")+command("SUBSCRIBE", "a.")+command("CANCEL", "a.")+message("\x01b")+message("\x00b")+message("c"))
	if err != nil {
		t.Fatal(err)
	}
	var m zmtp.Message
	for _, want := range []zmtp.Subscription{{Prefix: "a."}, {Prefix: "a.", Cancel: true}} {
		if sub, err := c.ReadMessage(&m); err != nil || sub == nil || *sub != want {
			t.Fatalf("got %+v %v, want %+v", sub, err, want)
		}
	}
	for _, want := range []*zmtp.Subscription{{Prefix: "b"}, {Prefix: "b", Cancel: true}, nil} {
		if sub, err := c.ReadMessage(&m); err != nil || sub != nil {
			t.Fatalf("%+v %v", sub, err)
		}
		if got := m.AsSubscription(); (got == nil) != (want == nil) || (got != nil && *got != *want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

func TestSubscribeFollowsThePeersVersion(t *testing.T) {
	t.Parallel()
	for minor, want := range []string{message("\x01top"), command("SUBSCRIBE", "top")} {
		c, w, err := accept(zmtp.Config{Type: zmtp.Sub}, greeting(byte(minor), "NULL")+command("READY", property("socket-TYPE", "PUB")))
		if err != nil {
			t.Fatal(err)
		}
		w.out.Reset()
		if err := c.Subscribe("top"); err != nil || w.out.String() != want {
			t.Errorf("3.%d: wrote %q (%v)", minor, w.out.String(), err)
		}
	}
}

func TestPlainLetsInWhoKnowsThePassword(t *testing.T) {
	t.Parallel()
	cfg := zmtp.Config{Type: zmtp.Pull, Auth: func(u, p string) bool { return u == "ann" && p == "secret" }}
	start := greeting(1, "PLAIN")
	initiate := command("INITIATE", property("Socket-Type", "PUSH"))
	if _, w, err := accept(cfg, start+command("HELLO", "\x03ann\x06secret")+initiate+message("x")); err != nil {
		t.Fatalf("%v; wrote %q", err, w.out.String())
	}
	for name, in := range map[string]string{
		"wrong password": start + command("HELLO", "\x03ann\x05wrong") + initiate,
		"no mechanism":   hello("PUSH"),
	} {
		if _, _, err := accept(cfg, in); !errors.Is(err, zmtp.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, w, err := accept(cfg, start+command("HELLO", "\x03ann\x05wrong"))
	if err == nil || !strings.Contains(w.out.String(), "ERROR") {
		t.Errorf("the peer is not told: %q", w.out.String())
	}
}

func TestBrokenBytesAreRefusedBeforeTheyCostMemory(t *testing.T) {
	t.Parallel()
	huge := "\x02\x7f\xff\xff\xff\xff\xff\xff\xff"
	cfg := zmtp.Config{Type: zmtp.Pull, MaxMessage: 1000, MaxParts: 3}
	for name, in := range map[string]string{
		"not zeromq":             "GET / HTTP/1.1\r\n\r\n",
		"zmtp 2":                 greeting(0, "NULL")[:10] + "\x01" + strings.Repeat("\x00", 60),
		"message in handshake":   greeting(1, "NULL") + message("x"),
		"another command":        greeting(1, "NULL") + command("HELLO", ""),
		"no socket type":         greeting(1, "NULL") + command("READY", ""),
		"cut property":           greeting(1, "NULL") + command("READY", "\x0bSocket-Type\x00\x00\x00\xffPUSH"),
		"wrong socket type":      hello("SUB"),
		"huge frame":             hello("PUSH") + huge,
		"too large":              hello("PUSH") + message(strings.Repeat("x", 1001)),
		"too large together":     hello("PUSH") + message(strings.Repeat("x", 999), "yy"),
		"too many parts":         hello("PUSH") + message("", "", "", ""),
		"unknown flags":          hello("PUSH") + "\x08\x00",
		"command with more":      hello("PUSH") + "\x05\x00",
		"huge command":           hello("PUSH") + "\x06\x00\x00\x00\x00\x00\x00\xff\xff",
		"nameless command":       hello("PUSH") + "\x04\x01\x00",
		"command between parts":  hello("PUSH") + "\x01\x01a" + command("PING", "\x00\x00"),
		"ping without its time":  hello("PUSH") + command("PING", "\x00"),
		"ping with long context": hello("PUSH") + command("PING", "\x00\x00"+strings.Repeat("c", 17)),
		"an error":               hello("PUSH") + command("ERROR", "\x02no"),
	} {
		c, _, err := accept(cfg, in)
		if err == nil {
			_, err = c.ReadMessage(new(zmtp.Message))
		}
		if !errors.Is(err, zmtp.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, in := range []string{"", "\xff", greeting(1, "NULL"), hello("PUSH") + "\x00", hello("PUSH") + "\x01\x01a", hello("PUSH") + "\x02\x00"} {
		c, _, err := accept(cfg, in)
		if err == nil {
			_, err = c.ReadMessage(new(zmtp.Message))
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("cut after %d bytes: %v", len(in), err)
		}
	}
}

func TestSilentPeerIsSentAway(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer there.Close()
	read := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, there); close(read) }()
	_, err := zmtp.Accept(here, zmtp.Config{Type: zmtp.Pull, Handshake: time.Millisecond})
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		t.Errorf("%v", err)
	}
	<-read // the connection was closed
}

// FuzzPeer plays any bytes at a socket of each type. What comes out must keep to the limits and mean the same when it is
// written and read again.
func FuzzPeer(f *testing.F) {
	for _, in := range []string{
		hello("PUSH") + message("a", "b") + message(strings.Repeat("x", 300)), hello("SUB") + command("SUBSCRIBE", "a") + message("\x01b"),
		greeting(0, "PLAIN") + command("HELLO", "\x01u\x01p") + command("INITIATE", property("Socket-Type", "REQ")) + message("", "q"),
		hello("REQ") + command("PING", "\x00\x01c") + message("", "q"), "\xff", "",
	} {
		f.Add([]byte(in), byte(0))
		f.Add([]byte(in), byte(2))
		f.Add([]byte(in), byte(9))
	}
	types := []zmtp.SocketType{zmtp.Pull, zmtp.Push, zmtp.Pub, zmtp.Sub, zmtp.Rep}
	f.Fuzz(func(t *testing.T, in []byte, pick byte) {
		cfg := zmtp.Config{Type: types[int(pick)%len(types)], MaxMessage: 500, MaxParts: 4}
		if pick >= 128 {
			cfg.Auth = func(string, string) bool { return true }
		}
		c, err := zmtp.Accept(&wireConn{in: bytes.NewReader(in)}, cfg)
		if err != nil {
			return
		}
		var m, again zmtp.Message
		for {
			sure := c.Buffered()
			sub, err := c.ReadMessage(&m)
			if err != nil {
				if sure && errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatal("a buffered message is cut off")
				}
				return
			}
			if sub != nil {
				continue
			}
			if m.Len() == 0 || m.Len() > 4 || m.Size() > 500 {
				t.Fatalf("%d parts of %d bytes", m.Len(), m.Size())
			}
			var parts [][]byte
			for i := range m.Len() {
				parts = append(parts, m.Part(i))
			}
			back, _, err := accept(zmtp.Config{Type: zmtp.Pull}, hello("PUSH")+string(zmtp.AppendMessage(nil, parts...)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := back.ReadMessage(&again); err != nil || again.Len() != m.Len() {
				t.Fatalf("read again: %d parts, %v", again.Len(), err)
			}
			for i := range parts {
				if !bytes.Equal(again.Part(i), parts[i]) {
					t.Fatalf("part %d is %q, was %q", i, again.Part(i), parts[i])
				}
			}
		}
	})
}
