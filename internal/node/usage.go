package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticksPerSecond is Linux's USER_HZ, which is 100 on every platform that Go runs on.
const ticksPerSecond = 100

// usage reads the resident memory in bytes and the CPU time in seconds of a process; zeros when it is gone.
func usage(pid int) (rss int64, cpu float64) {
	if pid <= 0 {
		return 0, 0
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The second field, the program's name in parentheses, may hold anything.
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 22 {
		return 0, 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)    // the kernel writes numbers
	system, _ := strconv.ParseFloat(fields[12], 64)  // as above
	pages, _ := strconv.ParseInt(fields[21], 10, 64) // as above
	return pages * int64(os.Getpagesize()), (user + system) / ticksPerSecond
}
