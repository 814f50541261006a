package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// PlatformUser is the name of the node's own user: it may do everything. No instance has it, since their names contain
// a dot.
const PlatformUser = "node"

// maxAccessBytes bounds access.json before it is read: a user takes about 1 KiB, so this is room for 16,000.
const maxAccessBytes = 16 << 20

// Access says who may connect and what each may do. It is stored as DIR/access.json.
type Access struct {
	Users []User `json:"users"`
}

// User is one credential with its rights. Subjects that are in no list are refused; the user [PlatformUser] needs none.
type User struct {
	Name           string    `json:"name"`
	PasswordSHA256 string    `json:"password_sha256"`  // hex; passwords are random, so a fast hash gives nothing away
	Expires        time.Time `json:"expires,omitzero"` // of the password: it makes no connection after that; zero: never
	Earlier        []Secret  `json:"earlier,omitempty"`
	Publish        []string  `json:"publish,omitempty"`
	Subscribe      []string  `json:"subscribe,omitempty"`
	Respond        bool      `json:"respond,omitempty"` // may answer each request that it receives, once
	Client         bool      `json:"client,omitempty"`  // is no service of ours, and may come in by a door
}

// HashPassword returns what User.PasswordSHA256 holds for password.
func HashPassword(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// UserOf returns the user that g's instance is on the broker: its credential with the rights that [Rights] gives.
func UserOf(g wire.Grant) User {
	publish, subscribe := Rights(g)
	return User{
		Name: g.User, PasswordSHA256: HashPassword(g.Password), Expires: g.Expires, Publish: publish, Subscribe: subscribe,
		Respond: len(g.Serves) > 0,
	}
}

// WriteAccess stores access as dir/access.json with mode 0600. A reader, and a crash, see the old file or the new one.
// A running broker follows the file: new connections are judged by it, and those of users whose password is in it no
// more are closed.
func WriteAccess(dir string, access Access) error {
	data, err := json.MarshalIndent(access, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the access file: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the broker's folder: %w", err)
	}
	file, err := os.CreateTemp(dir, ".access-*.json") // created with mode 0600
	if err != nil {
		return fmt.Errorf("write the access file: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already when all went well
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), accessPath(dir))
	}
	if err != nil {
		return fmt.Errorf("write the access file: %w", err)
	}
	return nil
}

func accessPath(dir string) string { return filepath.Join(dir, "access.json") }

// readAccess returns the access file of dir and what identifies this version of it.
func readAccess(dir string) (Access, os.FileInfo, error) {
	var access Access
	file, err := os.Open(accessPath(dir))
	if err != nil {
		return access, nil, err
	}
	defer func() { _ = file.Close() }() // nothing was written
	info, err := file.Stat()
	if err != nil {
		return access, nil, err
	}
	if info.Size() > maxAccessBytes {
		return access, nil, fmt.Errorf("access file is %d bytes, at most %d are read", info.Size(), maxAccessBytes)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxAccessBytes))
	if err != nil {
		return access, nil, err
	}
	if err := json.Unmarshal(data, &access); err != nil {
		return Access{}, nil, fmt.Errorf("decode access file: %w", err)
	}
	return access, info, nil
}
