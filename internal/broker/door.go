package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/hozo-dev/hozo/fault"
)

// DoorKind is the protocol of a Door.
type DoorKind string

// The protocols that nats-server has.
const (
	DoorNATS      DoorKind = "nats"
	DoorMQTT      DoorKind = "mqtt"
	DoorWebSocket DoorKind = "websocket"
)

// Door is an address at which foreign clients come in.
type Door struct {
	Kind    DoorKind
	Address string // host:port
}

// TLSFiles are paths of PEM files. They are read at each handshake, so that a renewed certificate needs no restart.
type TLSFiles struct {
	Cert, Key string
	CA        string // when set, clients must show a certificate that it has signed
}

func (c Config) validateDoors() error {
	var errs []error
	seen := map[DoorKind]bool{}
	for _, d := range c.Doors {
		addr, err := netip.ParseAddrPort(d.Address)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("broker config: door %s: %w", d.Kind, err))
		case d.Kind != DoorNATS && d.Kind != DoorMQTT && d.Kind != DoorWebSocket:
			errs = append(errs, fmt.Errorf("broker config: there is no door for %q", d.Kind))
		case seen[d.Kind]:
			errs = append(errs, fmt.Errorf("broker config: two doors for %s", d.Kind))
		case !addr.Addr().IsLoopback() && c.TLS == nil:
			errs = append(errs, fmt.Errorf("broker config: door %s at %s is open to the network without TLS", d.Kind, d.Address))
		}
		seen[d.Kind] = true
	}
	return errors.Join(errs...)
}

// config reads the files.
func (f *TLSFiles) config() (*tls.Config, error) {
	bad := func(path string, err error) error {
		return &fault.Error{
			Code: "broker/tls", Kind: fault.Misuse, Where: path, What: "the certificate of the broker cannot be used", Err: err,
			Fix: "see broker.tls in the manifest: cert and key are PEM files that belong together",
		}
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, bad(f.Cert, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if f.CA == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, bad(f.CA, err)
	}
	cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, bad(f.CA, errors.New("it holds no certificate"))
	}
	return cfg, nil
}

// openFront listens at every door.
func (b *Broker) openFront() (*front, error) {
	f := &front{broker: b, guests: b.gate.guests}
	if b.cfg.TLS != nil {
		if _, err := b.cfg.TLS.config(); err != nil { // now rather than at the first client
			return nil, err
		}
	}
	for _, d := range b.cfg.Doors {
		ln, err := net.Listen("tcp", d.Address)
		if err != nil {
			f.close()
			return nil, &fault.Error{
				Code: "broker/no-listen", Where: d.Address, What: fmt.Sprintf("clients cannot be let in by %s", d.Kind), Err: err,
				Fix: "stop the program that has the address, or change broker in the manifest",
			}
		}
		f.open = append(f.open, openDoor{d, ln})
	}
	return f, nil
}
