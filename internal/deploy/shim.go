package deploy

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/hozo-dev/hozo/fault"
)

// The shim is the one command that is run on a host. It finds the agent by the digest of the binary and becomes it; where
// it is not there it asks for it, on the same streams, and then becomes it. So there is one session in either case.
//
// It is for any POSIX shell. A folder on which nothing can be executed, or that is another user's, is passed over.
const shimScript = `umask 077
S=
case "$(uname -s)-$(uname -m)" in
%[2]s*) ;;
esac
if [ "$(id -u)" = 0 ]; then set -- /var/lib/hozo/agent /usr/local/lib/hozo/agent /root/.cache/hozo/agent
else set -- "$HOME/.cache/hozo/agent" "/var/tmp/hozo-$(id -u)/agent"; fi
for d; do [ -n "$S" ] && [ -x "$d/$S" ] && [ -O "$d/$S" ] && { echo "%[1]s ready"; exec "$d/$S" agent; }; done
echo "%[1]s need $(uname -s)-$(uname -m)"
read -r N S || exit 1
for d; do
mkdir -p "$d" 2>/dev/null && [ -O "$d" ] || continue
t="$d/.new.$$"
printf "#!/bin/sh\nexit 0\n" >"$t" 2>/dev/null && chmod 700 "$t" && "$t" 2>/dev/null || { rm -f "$t"; continue; }
rm -f "$t"
head -c "$N" | gzip -dc >"$t" || { rm -f "$t"; echo "%[1]s failed to write to $d"; exit 1; }
case "$(sha256sum <"$t")" in "$S "*) ;; *) rm -f "$t"; echo "%[1]s failed to get the whole of it"; exit 1;; esac
chmod 700 "$t" && { sync "$t" 2>/dev/null || sync; } && mv "$t" "$d/$S" || exit 1
find "$d" -type f -mtime +30 ! -name "$S" -exec rm -f {} + 2>/dev/null
echo "%[1]s ready"
exec "$d/$S" agent
done
echo "%[1]s failed to find a folder on which programs can be executed; tried $*"
exit 1`

// platforms maps what uname says to Go's words.
var platforms = map[string]string{"Linux-x86_64": "linux-amd64", "Linux-aarch64": "linux-arm64", "Linux-riscv64": "linux-riscv64", "Linux-armv7l": "linux-arm"}

// binary is the agent for one platform.
type binary struct {
	path   string
	digest string

	once   sync.Once
	packed []byte // gzip
	err    error
}

// binaries finds the agents that there are: this program itself, and hozo-linux-ARCH beside it.
func binaries(self string) (map[string]*binary, error) {
	found := map[string]*binary{}
	for uname, platform := range platforms {
		path := filepath.Join(filepath.Dir(self), "hozo-"+platform)
		if platform == runtime.GOOS+"-"+runtime.GOARCH {
			path = self
		}
		digest, err := digestOf(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the agent's binary: %w", err)
		}
		found[uname] = &binary{path: path, digest: digest}
	}
	return found, nil
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// pack compresses the binary, once for all hosts.
func (b *binary) pack() ([]byte, error) {
	b.once.Do(func() {
		var out bytes.Buffer
		z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		if err == nil {
			var data []byte
			if data, err = os.ReadFile(b.path); err == nil {
				if _, err = z.Write(data); err == nil {
					err = z.Close()
				}
			}
		}
		b.packed, b.err = out.Bytes(), err
	})
	return b.packed, b.err
}

// shim returns the command for a host's login shell, and the word by which its own lines are known from what a login
// may print.
func (d *deployment) shim(sudo, password bool) (command, word string) {
	var some [8]byte
	_, _ = rand.Read(some[:]) // never fails, by its documentation
	word = "hozo-" + hex.EncodeToString(some[:])
	var cases strings.Builder
	for uname, b := range d.binaries {
		fmt.Fprintf(&cases, "%s) S=%s;;\n", uname, b.digest)
	}
	command = "exec "
	switch {
	case sudo && password:
		command += "sudo -S -p " + word + ": -- "
	case sudo:
		command += "sudo -n -- "
	}
	return command + "sh -c '" + fmt.Sprintf(shimScript, word, cases.String()) + "'", word
}

// maxNoise bounds what a login may print before the shim speaks.
const maxNoise = 64 << 10

// greet waits until the agent runs, and sends it there if need be.
func (d *deployment) greet(word string, in io.Writer, out *bufio.Reader) error {
	var cut error
	for noise := 0; noise < maxNoise; {
		line, err := out.ReadString('\n')
		if err != nil {
			return cmp.Or(cut, err)
		}
		said, ours := strings.CutPrefix(strings.TrimSpace(line), word+" ")
		if !ours {
			noise += len(line)
			continue
		}
		verb, rest, _ := strings.Cut(said, " ")
		switch verb {
		case "ready":
			return nil
		case "need":
			// An upload that is cut short is the shim's decision, whose reason comes next.
			if cut = d.upload(rest, in); cut != nil && !errors.Is(cut, io.EOF) {
				return cut
			}
		default:
			return &fault.Error{Code: "deploy/no-agent", What: "the agent could not be put on the host: it " + said, Fix: "make room on its disk, or mount one of these folders without noexec"}
		}
	}
	return &fault.Error{Code: "deploy/noise", What: "the login prints without end", Fix: "see what the shell's startup files print on the host"}
}

func (d *deployment) upload(uname string, in io.Writer) error {
	b := d.binaries[uname]
	if b == nil {
		arch := platforms[uname]
		fix := "hozo deploys to Linux only"
		if arch != "" {
			goarch := strings.TrimPrefix(arch, "linux-")
			fix = fmt.Sprintf("build it beside this program: CGO_ENABLED=0 GOOS=linux GOARCH=%s go build -o %s ./cmd/hozo", goarch, filepath.Join(filepath.Dir(d.self), "hozo-"+arch))
		}
		return &fault.Error{Code: "deploy/architecture", What: "the host is a " + uname + ", and there is no hozo for it here", Fix: fix}
	}
	packed, err := b.pack()
	if err != nil {
		return fmt.Errorf("read the agent's binary: %w", err)
	}
	if _, err := fmt.Fprintf(in, "%d %s\n", len(packed), b.digest); err != nil {
		return err
	}
	_, err = in.Write(packed)
	return err
}
