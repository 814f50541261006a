package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// envRole tells a process that Run is called in what it is to be, and by which descriptor: "active:3" is a keeper
	// on that link, "standby:7" a standby that starts from that image. Without it, Run begins as a fresh standby.
	envRole     = "HOZO_KEEPER"
	roleActive  = "active"
	roleStandby = "standby"

	// ownImage is the binary of this process, even if another one has its path now.
	ownImage = "/proc/self/exe"
)

// image is everything that a standby knows, as it goes through an exec.
type image struct {
	Format  int          `json:"format"`
	Entries []imageEntry `json:"entries"`
	Keeper  int          `json:"keeper,omitempty"` // pid of the keeper that runs; 0: one has to be started
	Link    int          `json:"link,omitempty"`   // descriptor of its link
}

type imageEntry struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value,omitempty"`
	FDs   []int           `json:"fds,omitempty"`
}

// withRole is the environment of this process with a role for Run.
func withRole(role string, fd int) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, envRole+"=") })
	return append(env, fmt.Sprintf("%s=%s:%d", envRole, role, fd))
}

// takeRole returns the role that the environment gives, and takes it out: no child is to have it.
func takeRole() (role string, fd int, err error) {
	text, ok := os.LookupEnv(envRole)
	if !ok {
		return "", -1, nil
	}
	if err := os.Unsetenv(envRole); err != nil {
		return "", -1, err
	}
	role, number, _ := strings.Cut(text, ":")
	fd, err = strconv.Atoi(number)
	if err != nil || role != roleActive && role != roleStandby {
		return "", -1, misuse("bad-role", fmt.Sprintf("%s=%q is for the keeper's own use", envRole, text), "unset "+envRole)
	}
	unix.CloseOnExec(fd)
	return role, fd, nil
}

// become makes this process a standby that runs the binary at path and starts from img: pid, children and descriptors
// stay. It returns only when that is not possible. Nothing may fork meanwhile, or the child would inherit everything.
func (img image) become(path string) error {
	data, err := json.Marshal(img)
	if err != nil {
		return err
	}
	memory, err := unix.MemfdCreate("keeper", 0)
	if err != nil {
		return fmt.Errorf("write own image: %w", err)
	}
	file := os.NewFile(uintptr(memory), "image")
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return fmt.Errorf("write own image: %w", err)
	}
	fds := img.fds()
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return errors.Join(fmt.Errorf("keep descriptor %d over an exec: %w", fd, err), img.closeOnExec())
		}
	}
	err = syscall.Exec(path, os.Args, withRole(roleStandby, memory))
	return errors.Join(fmt.Errorf("exec %s: %w", path, err), img.closeOnExec())
}

// readImage reads the image that become has left.
func readImage(fd int) (image, error) {
	file := os.NewFile(uintptr(fd), "image")
	defer file.Close()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return image{}, fmt.Errorf("read own image: %w", err)
	}
	var img image
	if err := json.NewDecoder(file).Decode(&img); err != nil {
		return image{}, fmt.Errorf("read own image: %w", err)
	}
	return img, img.closeOnExec()
}

func (img image) fds() []int {
	var all []int
	for _, e := range img.Entries {
		all = append(all, e.FDs...)
	}
	if img.Keeper != 0 {
		all = append(all, img.Link)
	}
	return all
}

func (img image) closeOnExec() error {
	for _, fd := range img.fds() {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return fmt.Errorf("take back descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// renew makes the standby run the binary at path; the keeper goes on meanwhile. When that fails nothing has changed.
func (s *standby) renew(path string) {
	img := image{Format: StateFormat, Keeper: s.keeper}
	for key, e := range s.entries {
		img.Entries = append(img.Entries, imageEntry{key, e.value, e.fds})
	}
	var err error
	if img.Link, err = s.link.file(); err == nil {
		err = img.become(path)
		_ = unix.Close(img.Link) // a duplicate
	}
	s.k.log.Error("standby cannot become another binary", "path", path, "error", err)
	_ = s.link.send(parcel{Op: opHello, Value: s.k.versionJSON()}) // the link's end would be seen
}

// revive returns the standby that an image describes.
func (k *Keeper) revive(fd int) (*standby, error) {
	img, err := readImage(fd)
	if err != nil {
		return nil, err
	}
	if img.Format > StateFormat {
		return nil, failure("skew", fmt.Sprintf("state is of format %d, this version reads up to %d", img.Format, StateFormat),
			"upgrade to a newer version", nil)
	}
	entries := make(map[string]*entry, len(img.Entries))
	for _, e := range img.Entries {
		entries[e.Key] = &entry{e.Value, e.FDs}
	}
	s := newStandby(k, entries)
	s.ever = true
	if img.Keeper == 0 {
		return s, nil
	}
	s.keeper, s.began, s.serving = img.Keeper, k.hello.Started, true
	if s.link, err = openLink(img.Link); err != nil {
		return nil, err
	}
	k.isReady()
	_ = s.link.send(parcel{Op: opHello, Value: k.versionJSON()}) // the link's end would be seen
	return s, nil
}
