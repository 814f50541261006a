package keeper

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the process that listens at an address, as far as /proc tells this user; "" when it does not.
func holder(l Listen) string {
	inodes := map[string]bool{}
	if l.Network == "unix" {
		eachLine("/proc/net/unix", func(fields []string) {
			if len(fields) == 8 && fields[7] == l.Address {
				inodes[fields[6]] = true
			}
		})
	} else {
		_, text, err := net.SplitHostPort(l.Address)
		port, bad := strconv.ParseUint(text, 10, 16)
		if err != nil || bad != nil {
			return ""
		}
		suffix := fmt.Sprintf(":%04X", port)
		for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			eachLine(table, func(fields []string) {
				const listening = "0A" // TCP_LISTEN
				if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], suffix) {
					inodes[fields[9]] = true
				}
			})
		}
	}
	return owner(inodes)
}

// owner names the first process that has one of the sockets open.
func owner(inodes map[string]bool) string {
	if len(inodes) == 0 {
		return ""
	}
	all, err := processes()
	if err != nil {
		return ""
	}
	for _, p := range all {
		dir := filepath.Join("/proc", strconv.Itoa(p.pid))
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // another user's
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			inode, ok := strings.CutPrefix(link, "socket:[")
			if err != nil || !ok || !inodes[strings.TrimSuffix(inode, "]")] {
				continue
			}
			name, err := os.ReadFile(filepath.Join(dir, "comm"))
			if err != nil {
				return fmt.Sprintf("process %d", p.pid)
			}
			return fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(name)), p.pid)
		}
	}
	return ""
}

func eachLine(path string, use func(fields []string)) {
	f, err := os.Open(path)
	if err != nil {
		return // IPv6 may be off
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		use(strings.Fields(s.Text()))
	}
}
