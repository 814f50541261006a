package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// redis is a Redis server of its own on a free loopback port, without persistence unless appendOnly is set.
type redis struct {
	children
	secret     string
	address    string
	appendOnly bool // with a log that is synced every second
}

func (r *redis) start(ctx context.Context, dir, secret string) error {
	r.children.dir, r.secret = dir, secret
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	r.address = fmt.Sprintf("127.0.0.1:%d", port)
	conf := filepath.Join(dir, "redis.conf") // not arguments: those are for all to see
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\nrequirepass %s\nsave \"\"\nappendonly %s\nappendfsync everysec\ndir %s\n",
		port, secret, pick(r.appendOnly, "yes", "no"), dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	if err := r.children.start("redis", nil, nil, dir, "redis-server", conf); err != nil {
		return err
	}
	return poll(ctx, "Redis", 20*time.Millisecond, func() (bool, error) {
		_, err := r.counter(ctx, "none")
		return err == nil, r.alive()
	})
}

func (r *redis) url() string { return fmt.Sprintf("redis://:%s@%s/0", r.secret, r.address) }

// counter reads a number over Redis' text protocol; 0 when it was never set.
func (r *redis) counter(ctx context.Context, key string) (uint64, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nGET %s\r\nQUIT\r\n", r.secret, key); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(conn)
	var answer []string
	for lines.Scan() {
		answer = append(answer, lines.Text())
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	// "+OK", then "$-1" while it is not set, or "$5" and the number; then "+OK".
	switch {
	case len(answer) == 3 && answer[0] == "+OK" && answer[1] == "$-1":
		return 0, nil
	case len(answer) == 4 && answer[0] == "+OK":
		return strconv.ParseUint(answer[2], 10, 64)
	default:
		return 0, fmt.Errorf("redis answered %q", strings.Join(answer, " "))
	}
}
