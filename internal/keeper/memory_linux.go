package keeper

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// keptHeap is the growth in percent at which the heap of keeper and standby is collected: they allocate little, and
// rarely, so a small heap costs them nothing.
const keptHeap = 25

// slim gives back the memory that only the start has needed: free heap, and the pages of the binary, most of which
// initialise packages that other parts of the platform use. Pages that are needed again come back from the page cache.
func slim() {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return // it was only thrift
	}
	defer maps.Close()
	own, err := os.Readlink(ownImage)
	if err != nil {
		return
	}
	for s := bufio.NewScanner(maps); s.Scan(); {
		var from, to uintptr
		var rights string
		if _, err := fmt.Sscanf(s.Text(), "%x-%x %s", &from, &to, &rights); err != nil {
			continue
		}
		// What can be written may hold something that the file does not.
		if strings.HasSuffix(s.Text(), own) && !strings.Contains(rights, "w") {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED) // as above
		}
	}
}
