package supervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/hozo-dev/hozo/internal/plan"
)

// The health protocol of gRPC (grpc.health.v1) is one call with one field each way, so net/http's HTTP/2 and a few
// bytes by hand do what would cost the whole of grpc-go: HealthCheckRequest{string service = 1} and
// HealthCheckResponse{enum status = 1}, each behind a byte that says "not compressed" and four of its length.
const (
	grpcCheck     = "/grpc.health.v1.Health/Check"
	grpcHeadBytes = 5
	grpcMaxAnswer = 1 << 10 // a response has 2 bytes
	grpcOK        = "0"
	grpcNotFound  = "5"
	grpcUnknownOp = "12"
)

// The states of a HealthCheckResponse.
const (
	grpcServing    = 1
	grpcNotServing = 2
)

var grpcStates = map[uint64]string{0: "UNKNOWN", 3: "SERVICE_UNKNOWN"}

func askGRPC(ctx context.Context, h plan.Health, pid int) error {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{DialContext: dialer(h, pid), Protocols: &protocols}
	defer transport.CloseIdleConnections() // the next probe asks whoever is there then
	host := h.GRPC
	if h.Unix != "" {
		host = "unix"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+grpcCheck, bytes.NewReader(grpcRequest(h.Service)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("User-Agent", "hozo-health")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			return inner.Err
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health check answers %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, grpcMaxAnswer))
	if err != nil {
		return err
	}
	code, message := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if code == "" { // an answer without a message has its trailers in the head
		code, message = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	switch code {
	case grpcOK:
	case grpcNotFound:
		return fmt.Errorf("health check does not know service %q", h.Service)
	case grpcUnknownOp:
		return errors.New("the server has no grpc.health.v1 service")
	default:
		return fmt.Errorf("health check answers status %q: %s", code, message)
	}
	state, err := grpcResponse(body)
	if err == nil && state == grpcNotServing {
		return fmt.Errorf("health check answers %w", errNotServing)
	}
	if err == nil && state != grpcServing {
		name, known := grpcStates[state]
		if !known {
			name = fmt.Sprint(state)
		}
		return errors.New("health check answers " + name)
	}
	return err
}

func grpcRequest(service string) []byte {
	var message []byte
	if service != "" {
		const field = 1<<3 | 2 // number 1, of a length
		message = append(binary.AppendUvarint([]byte{field}, uint64(len(service))), service...)
	}
	head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(head, message...)
}

// grpcResponse reads the status of a HealthCheckResponse, passing over fields that it may have one day.
func grpcResponse(body []byte) (state uint64, err error) {
	broken := errors.New("health check's answer is not one")
	if len(body) < grpcHeadBytes || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-grpcHeadBytes {
		return 0, broken
	}
	for m := body[grpcHeadBytes:]; len(m) > 0; {
		field, n := binary.Uvarint(m)
		if n <= 0 {
			return 0, broken
		}
		value, v := binary.Uvarint(m[n:])
		if v <= 0 {
			return 0, broken
		}
		m = m[n+v:]
		switch field & 7 {
		case 0: // a number
			if field>>3 == 1 {
				state = value
			}
		case 2: // of a length
			if value > uint64(len(m)) {
				return 0, broken
			}
			m = m[value:]
		default:
			return 0, broken
		}
	}
	return state, nil
}
