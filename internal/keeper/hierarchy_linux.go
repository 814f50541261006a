package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchyV2 is the key of the unified hierarchy among those that are known by a controller.
const hierarchyV2 = ""

// hierarchies are the mounted cgroup hierarchies, as the folder of this process's own group in each: by controller for
// version 1 ("freezer", "memory"), by hierarchyV2 for version 2. One where the group is not to be seen is left out.
type hierarchies map[string]string

// findHierarchies reads what is mounted. It mounts nothing itself: a mount would be seen by everything that shares the
// namespace, and a project is not to change the host to run.
func findHierarchies() (hierarchies, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	return parseHierarchies(mounts, own), nil
}

func parseHierarchies(mounts, own []byte) hierarchies {
	groups := map[string]string{}
	for line := range bytes.Lines(own) { // 4:memory:/user.slice
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			groups[controller] = parts[2]
		}
	}
	found := hierarchies{}
	for line := range bytes.Lines(mounts) {
		// 36 31 0:33 /root /mount rw,relatime shared:9 - cgroup source rw,devices
		head, tail, ok := strings.Cut(string(line), " - ")
		before, after := strings.Fields(head), strings.Fields(tail)
		if !ok || len(before) < 6 || len(after) < 3 {
			continue
		}
		root, mount := unescape(before[3]), unescape(before[4])
		if !strings.HasPrefix(before[5]+",", "rw,") {
			continue
		}
		add := func(controller string) {
			group, member := groups[controller]
			if _, twice := found[controller]; twice || !member {
				return
			}
			if below, ok := relativeTo(root, group); ok {
				found[controller] = filepath.Join(mount, below)
			}
		}
		switch after[0] {
		case "cgroup2":
			add(hierarchyV2)
		case "cgroup":
			for controller := range strings.SplitSeq(after[2], ",") {
				if controller != "" {
					add(controller)
				}
			}
		}
	}
	return found
}

// relativeTo is path below root; false when it is not.
func relativeTo(root, path string) (string, bool) {
	if root == "/" {
		return path, !strings.HasPrefix(path, "/..")
	}
	below, ok := strings.CutPrefix(path, root)
	return below, ok && (below == "" || below[0] == '/')
}

// unescape undoes how mountinfo writes blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// projectGroup is the name of the group of all processes of a state directory, the same for each of its keepers.
func projectGroup(state string) (string, error) {
	var info unix.Stat_t
	if err := unix.Stat(state, &info); err != nil {
		return "", fmt.Errorf("look at state directory: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %s", info.Dev, info.Ino, state))
	return "hozo-" + hex.EncodeToString(sum[:8]), nil
}

// writeGroup writes a value to a file of a group.
func writeGroup(dir, file, value string) error {
	// Not O_TRUNC or O_CREATE: these files are the kernel's.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// readGroup reads a file of a group that is short.
func readGroup(dir, file string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(data)), err
}

// counterOf reads one number of a file of "name value" lines, such as memory.events.
func counterOf(dir, file, name string) (uint64, bool) {
	text, err := readGroup(dir, file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(text) {
		var n uint64
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == name {
			if _, err := fmt.Sscan(value, &n); err == nil {
				return n, true
			}
		}
	}
	return 0, false
}
