package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

const clientPassword = "correct horse"

// house is a broker with doors, its streams events.raw and events.out, and the clients sensors and page.
type house struct {
	cfg   broker.Config
	url   string // of the loopback port
	doors map[broker.DoorKind]string
	js    jetstream.JetStream
}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := broker.ChoosePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func newHouse(t *testing.T, change func(*broker.Config), kinds ...broker.DoorKind) *house {
	t.Helper()
	h := &house{doors: map[broker.DoorKind]string{}}
	h.cfg = broker.Config{Dir: filepath.Join(testkit.TempDir(t), "broker"), Memory: 1 << 40, Store: 16 << 30, Logger: testkit.Logger(t)}
	for _, kind := range kinds {
		h.doors[kind] = freePort(t)
		h.cfg.Doors = append(h.cfg.Doors, broker.Door{Kind: kind, Address: h.doors[kind]})
	}
	if change != nil {
		change(&h.cfg)
	}
	service := wire.Grant{User: "svc.1", Service: "svc", Instance: 1, Password: clientPassword, Inbox: "_INBOX.svc.1", Watches: []string{"prices.>"}}
	access := broker.Access{Users: []broker.User{
		{Name: broker.PlatformUser, PasswordSHA256: broker.HashPassword(clientPassword)},
		broker.UserOf(service),
		broker.ClientOf(wire.Grant{
			User: "sensors", Service: "sensors", Password: clientPassword, Inbox: "_INBOX.sensors",
			Publish: []wire.Route{{Subject: "events.raw", Stream: "events.raw"}}, Live: []string{"prices.>"}, Serves: []string{"sensor.read"},
		}),
		broker.ClientOf(wire.Grant{
			User: "page", Service: "page", Password: clientPassword, Inbox: "_INBOX.page",
			Consumes: []wire.Source{{Stream: "events.out", Durable: "page"}}, Watches: []string{"prices.*"}, Calls: []string{"sensor.read"},
		}),
	}}
	if err := broker.WriteAccess(h.cfg.Dir, access); err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	wg.Go(func() {
		if err := b.Run(ctx); err != nil {
			failed <- err
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-b.Ready():
	case err := <-failed:
		t.Fatal(err)
	}
	h.url = b.URL()
	h.js, err = jetstream.New(h.as(t, h.url, broker.PlatformUser))
	if err != nil {
		t.Fatal(err)
	}
	layout := broker.Layout{
		Streams:   []broker.StreamSpec{{Name: "events.raw", MaxBytes: 16 << 20}, {Name: "events.out", MaxBytes: 16 << 20}},
		Consumers: []broker.ConsumerSpec{{Stream: "events.out", Durable: "page", Foreign: true}},
	}
	if err := broker.Provision(testkit.Context(t), h.js, layout); err != nil {
		t.Fatal(err)
	}
	return h
}

// as connects as a user, or fails the test.
func (h *house) as(t *testing.T, url, user string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := dial(url, user, opts...)
	if err != nil {
		t.Fatalf("connect as %s: %v", user, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func dial(url, user string, opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(url, append([]nats.Option{
		nats.UserInfo(user, clientPassword), nats.CustomInboxPrefix("_INBOX." + user), nats.NoReconnect(), nats.Timeout(testkit.Patience),
	}, opts...)...)
}

// denied runs try and expects the server to complain of permissions on the connection.
func denied(t *testing.T, nc *nats.Conn, what string, try func() error) {
	t.Helper()
	said := make(chan error, 8) // the server says it once a try
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case said <- err:
		default:
		}
	})
	if err := errors.Join(try(), nc.FlushTimeout(testkit.Patience)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := testkit.Wait(t, said); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestForeignClientDoesWhatIsDeclaredAndNothingElse(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil, broker.DoorNATS)
	door := "nats://" + h.doors[broker.DoorNATS]
	sensors, page := h.as(t, door, "sensors"), h.as(t, door, "page")
	js, err := jetstream.New(sensors)
	if err != nil {
		t.Fatal(err)
	}
	if ack, err := js.Publish(testkit.Context(t), "events.raw", []byte("21.5")); err != nil || ack.Stream != "events_raw" {
		t.Fatalf("publish: %+v %v", ack, err)
	}
	if _, err := h.js.Publish(testkit.Context(t), "events.out.a", []byte("stored")); err != nil {
		t.Fatal(err)
	}
	pageJS, err := jetstream.New(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fetch(t, pageJS, "events_out", "page", 1) {
		if string(m.Data()) != "stored" {
			t.Errorf("fetched %q", m.Data())
		}
		ack(t, m)
	}
	if _, err := sensors.Subscribe("sensor.read", func(m *nats.Msg) { _ = m.Respond([]byte("22")) }); err != nil {
		t.Fatal(err)
	}
	heard, err := page.SubscribeSync("prices.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sensors.FlushTimeout(testkit.Patience), page.FlushTimeout(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	if answer, err := page.Request("sensor.read", nil, testkit.Patience); err != nil || string(answer.Data) != "22" {
		t.Errorf("request: %v", err)
	}
	if err := sensors.Publish("prices.eur", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if m, err := heard.NextMsg(testkit.Patience); err != nil || m.Subject != "prices.eur" {
		t.Errorf("live: %v", err)
	}
	for what, subject := range map[string]string{
		"another stream": "events.out", "below its own": "events.raw.x", "parked events": "hozo.dlq.sensors.events_raw.1.0", "reports": "hozo.report.sensors.0",
		"another's consumer": "$JS.API.CONSUMER.MSG.NEXT.events_out.page", "deleting": "$JS.API.STREAM.DELETE.events_raw", "server": "$SYS.REQ.SERVER.PING", "MQTT": "$MQTT.sub.x",
	} {
		denied(t, sensors, "publish to "+what, func() error { return sensors.Publish(subject, nil) })
	}
	for what, subject := range map[string]string{"everything": ">", "another's answers": "_INBOX.sensors.>", "MQTT's deliveries": "$MQTT.sub.>", "another stream": "events.raw", "advisories": "$JS.EVENT.>"} {
		denied(t, page, "subscribe to "+what, func() error { _, err := page.SubscribeSync(subject); return err })
	}
}

func TestOnlyClientsComeInByADoor(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil, broker.DoorNATS, broker.DoorWebSocket)
	for _, user := range []string{broker.PlatformUser, "svc.1"} {
		if nc, err := dial(h.url, user); err != nil {
			t.Errorf("%s cannot use the loopback port: %v", user, err)
		} else {
			nc.Close()
		}
		for _, door := range []string{"nats://" + h.doors[broker.DoorNATS], "ws://" + h.doors[broker.DoorWebSocket]} {
			if nc, err := dial(door, user); err == nil {
				nc.Close()
				t.Errorf("%s came in at %s", user, door)
			}
		}
	}
}

func TestPagesOfOtherOriginsAreKeptOut(t *testing.T) {
	t.Parallel()
	from := func(origin string) nats.Option {
		return nats.WebSocketConnectionHeaders(http.Header{"Origin": {origin}})
	}
	h := newHouse(t, nil, broker.DoorWebSocket)
	door := "ws://" + h.doors[broker.DoorWebSocket]
	page := h.as(t, door, "page", from("http://"+h.doors[broker.DoorWebSocket]))
	heard, err := page.SubscribeSync("prices.*")
	if err != nil {
		t.Fatal(err)
	}
	denied(t, page, "publish", func() error { return page.Publish("prices.eur", nil) })
	if err := h.as(t, door, "sensors").Publish("prices.eur", []byte("1")); err != nil { // no page: no origin
		t.Fatal(err)
	}
	if _, err := heard.NextMsg(testkit.Patience); err != nil {
		t.Error(err)
	}
	if nc, err := dial(door, "page", from("http://evil.example")); err == nil {
		nc.Close()
		t.Error("a page of another host came in")
	}
	allowing := newHouse(t, func(c *broker.Config) { c.Origins = []string{"https://shop.example"} }, broker.DoorWebSocket)
	door = "ws://" + allowing.doors[broker.DoorWebSocket]
	allowing.as(t, door, "page", from("https://shop.example"))
	if nc, err := dial(door, "page", from("https://other.example")); err == nil {
		nc.Close()
		t.Error("an origin that is not listed came in")
	}
}

// certificate makes a self-signed one for the loopback in dir and returns its files and a pool that trusts it.
func certificate(t *testing.T, dir, name string) (files broker.TLSFiles, pool *x509.CertPool, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files = broker.TLSFiles{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := errors.Join(os.WriteFile(files.Cert, certPEM, 0o600), os.WriteFile(files.Key, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return files, pool, pair
}

func TestTLSAtTheDoors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files, pool, _ := certificate(t, dir, "server")
	clientFiles, _, clientPair := certificate(t, dir, "client")
	files.CA = clientFiles.Cert
	h := newHouse(t, func(c *broker.Config) { c.TLS = &files }, broker.DoorNATS, broker.DoorWebSocket, broker.DoorMQTT)
	trust := nats.Secure(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{clientPair}, MinVersion: tls.VersionTLS12})
	for _, door := range []string{"tls://" + h.doors[broker.DoorNATS], "nats://" + h.doors[broker.DoorNATS], "wss://" + h.doors[broker.DoorWebSocket]} {
		nc := h.as(t, door, "sensors", trust)
		if err := errors.Join(nc.Publish("prices.eur", []byte("1")), nc.FlushTimeout(testkit.Patience)); err != nil {
			t.Errorf("%s: %v", door, err)
		}
		if nc, err := dial(door, "sensors", nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})); err == nil {
			nc.Close()
			t.Errorf("%s let a client in that showed no certificate", door)
		}
	}
	if nc, err := dial("nats://"+h.doors[broker.DoorNATS], "sensors"); err == nil {
		nc.Close()
		t.Error("a client came in without TLS")
	}
	at := mosquittoArgs(t, h)
	mosquitto(t, "mosquitto_pub", append(at, "--cafile", files.Cert, "--cert", clientFiles.Cert, "--key", clientFiles.Key, "-q", "1", "-t", "events/raw", "-m", "sealed")...)
	if m := newestOf(t, h, "events_raw", "events.raw"); m != "sealed" {
		t.Errorf("the stream holds %q", m)
	}
}

func TestDoorsThatCannotOpenSaySo(t *testing.T) {
	t.Parallel()
	dir := testkit.TempDir(t)
	open := broker.Config{Dir: dir, Doors: []broker.Door{{Kind: broker.DoorNATS, Address: "0.0.0.0:4222"}}}
	if _, err := broker.New(open); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("a door to the network without TLS: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, cfg := range map[string]broker.Config{
		"broker/no-listen": {Dir: dir, Doors: []broker.Door{{Kind: broker.DoorMQTT, Address: taken.Addr().String()}}},
		"broker/tls":       {Dir: dir, TLS: &broker.TLSFiles{Cert: "none.pem", Key: "none.pem"}, Doors: []broker.Door{{Kind: broker.DoorNATS, Address: freePort(t)}}},
	} {
		b, err := broker.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Run(testkit.Context(t)); fault.Code(err) != want {
			t.Errorf("want %s: %v", want, err)
		}
	}
}

func mosquittoArgs(t *testing.T, h *house) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(h.doors[broker.DoorMQTT])
	if err != nil {
		t.Fatal(err)
	}
	return []string{"-h", host, "-p", port, "-u", "sensors", "-P", clientPassword}
}

// mosquitto runs one of the programs of the package mosquitto-clients to its end.
func mosquitto(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(testkit.Context(t), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s (run internal/testkit/deps.sh if it is missing): %v\n%s", name, err, out)
	}
}

// lastOf waits for a message of a stream and returns it.
func newestOf(t *testing.T, h *house, stream, subject string) string {
	t.Helper()
	s, err := h.js.Stream(testkit.Context(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	testkit.Eventually(t, func() bool {
		m, err := s.GetLastMsgForSubject(testkit.Context(t), subject)
		if err == nil {
			last = string(m.Data)
		}
		return err == nil
	}, "something is stored")
	return last
}

func TestMosquittoPublishesAndSubscribes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil, broker.DoorMQTT)
	at := mosquittoArgs(t, h)
	for _, qos := range []string{"0", "1"} {
		mosquitto(t, "mosquitto_pub", append(at, "-q", qos, "-t", "events/raw", "-m", "qos "+qos)...)
		testkit.Eventually(t, func() bool { return newestOf(t, h, "events_raw", "events.raw") == "qos "+qos }, "it is stored")
	}
	// Others hear what it publishes, and it hears nothing that it is not declared to.
	for _, qos := range []string{"0", "1"} {
		host, port, _ := net.SplitHostPort(h.doors[broker.DoorMQTT])
		sub := exec.CommandContext(testkit.Context(t), "stdbuf", "-oL", "mosquitto_sub", "-h", host, "-p", port, "-u", "page", "-P", clientPassword,
			"-i", "page-"+qos, "-c", "-q", qos, "-t", "prices/+", "-C", "2", "-F", "%t %p", "-d")
		out, err := sub.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		sub.Stderr = &stderr
		if err := sub.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		until := func(want string) {
			for lines.Scan() {
				if strings.Contains(lines.Text(), want) {
					return
				}
			}
			t.Fatalf("qos %s: no %q (%s)", qos, want, stderr.String())
		}
		until("Subscribed")
		mosquitto(t, "mosquitto_pub", append(at, "-q", qos, "-t", "prices/eur", "-m", "by mqtt")...)
		until("prices/eur by mqtt")
		if err := h.as(t, h.url, "sensors").Publish("prices.usd", []byte("by nats")); err != nil {
			t.Fatal(err)
		}
		until("prices/usd by nats")
		_ = sub.Wait() // it was told to end after two
	}
	wrong := exec.CommandContext(testkit.Context(t), "mosquitto_pub", "-h", at[1], "-p", at[3], "-u", "sensors", "-P", "wrong", "-t", "events/raw", "-m", "x")
	if err := wrong.Run(); err == nil {
		t.Error("a wrong password was let in")
	}
	mosquitto(t, "mosquitto_pub", append(at, "-q", "0", "-t", "events/out", "-m", "not declared")...) // MQTT 3.1.1 has no word for no
	s, err := h.js.Stream(testkit.Context(t), "events_out")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("%d messages were stored on a subject that is not declared", n)
	}
}
