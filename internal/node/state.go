package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/internal/broker"
)

// state is the project's state folder as the node sees it.
type state string

func (s state) socket() string             { return filepath.Join(string(s), "node.sock") }
func (s state) broker() string             { return filepath.Join(string(s), "broker") }
func (s state) grants() string             { return filepath.Join(string(s), "grants") }
func (s state) grant(name string) string   { return filepath.Join(s.grants(), name+".json") }
func (s state) log(instance string) string { return filepath.Join(string(s), "logs", instance+".log") }
func (s state) layout() string             { return filepath.Join(s.broker(), "layout.json") }
func (s state) applied() string            { return filepath.Join(string(s), "applied.json") }
func (s state) scale() string              { return filepath.Join(string(s), "scale.json") }
func (s state) pauses() string             { return filepath.Join(string(s), "pauses.json") }
func (s state) ticks() string              { return filepath.Join(string(s), "schedule.json") }
func (s state) ended() string              { return filepath.Join(string(s), "ended.json") }
func (s state) stopped() string            { return filepath.Join(string(s), "stopped.json") }

// write replaces a 0600 file at once: a reader, and a crash, see the old content or the new.
func write(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		_ = os.Remove(temp) // half a file would only take space on a full disk
		return err
	}
	return os.Rename(temp, path)
}

func read(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// newPassword returns 256 random bits.
func newPassword() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails; see crypto/rand
	return hex.EncodeToString(secret)
}

// credential is the node's own way into the broker.
type credential struct {
	Password string `json:"password"`
}

// password returns the secret in the file at path, and makes the file on first use.
func (s state) password() (string, error) {
	path := s.grant("node")
	var c credential
	err := read(path, &c)
	if errors.Is(err, os.ErrNotExist) {
		c.Password = newPassword()
		err = write(path, c)
	}
	return c.Password, err
}

// port returns the broker's port, chosen once for the life of the state folder.
func (s state) port() (int, error) {
	path := filepath.Join(s.broker(), "port")
	data, err := os.ReadFile(path)
	if err == nil {
		return strconv.Atoi(strings.TrimSpace(string(data)))
	}
	if !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := os.MkdirAll(s.broker(), 0o700); err != nil {
		return 0, err
	}
	port, err := broker.ChoosePort()
	if err != nil {
		return 0, err
	}
	return port, os.WriteFile(path, []byte(strconv.Itoa(port)+"\n"), 0o600)
}
