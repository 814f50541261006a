package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxParcelBytes bounds one message between keeper and standby: a record without its environment, at most
	// maxLabelBytes of labels, maxStatusBytes and the paths of its log and folder.
	maxParcelBytes = 128 << 10
	// maxParcelFiles is more than any entry has: an output pipe and a pidfd.
	maxParcelFiles = 8
	// linkTime bounds the wait for the other side to take a message. Whoever does not read for so long hangs.
	linkTime = 5 * time.Second
)

// The values of parcel.Op. Both sides may be of different versions of Hozo, so, as in the protocol of clients, values
// and fields are added and never changed; what one side does not know it ignores.
const (
	// From the standby. At the start of a keeper: put for each entry, then go.
	opPut    = "put"    // set an entry's value; descriptors join those it has
	opGo     = "go"     // everything was handed over
	opExited = "exited" // a child of the standby is a zombie; it stays one until the keeper says reap
	opGone   = "gone"   // the socket of drop is closed

	// From the keeper, beside put.
	opShut   = "shut"   // set an entry's value and close its descriptors
	opDrop   = "drop"   // remove an entry and close its descriptors
	opReady  = "ready"  // clients are answered
	opReap   = "reap"   // the zombie of exited may go
	opResend = "resend" // hand everything over again: the keeper becomes another binary
	opRenew  = "renew"  // become the binary that Key names
	opBye    = "bye"    // everything has ended; close all there is
)

// parcel is one message between a keeper and its standby.
type parcel struct {
	Op    string          `json:"op"`
	Key   string          `json:"key,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
	PID   int             `json:"pid,omitempty"`  // exited, reap
	Exit  *Exit           `json:"exit,omitempty"` // exited
	fds   []int
}

// link connects a keeper and its standby: a pair of unix sockets that keeps the borders of messages. It ends with
// either process, after what was sent has been read. Sending is safe for concurrent use; receiving is not.
type link struct {
	conn *net.UnixConn
	mu   sync.Mutex // held over a write
	data []byte     // of the last message received
}

// newLink makes both ends; the other is for a child to inherit.
func newLink() (own *link, other *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a link of keeper and standby: %w", err)
	}
	other = os.NewFile(uintptr(pair[1]), "link")
	own, err = openLink(pair[0])
	if err != nil {
		return nil, nil, errors.Join(err, other.Close())
	}
	return own, other, nil
}

// openLink takes over a descriptor.
func openLink(fd int) (*link, error) {
	unix.CloseOnExec(fd)
	for _, option := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 4*maxParcelBytes) // the default holds one message too
	}
	file := os.NewFile(uintptr(fd), "link")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("open link of keeper and standby: %w", err)
	}
	return &link{conn: conn.(*net.UnixConn)}, nil
}

// send gives a message to the other side, descriptors included; the caller keeps its own.
func (l *link) send(p parcel, fds ...int) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode %s: %w", p.Op, err)
	}
	if len(data) > maxParcelBytes {
		return misuse("too-long", fmt.Sprintf("%d bytes describe %s, at most %d are allowed", len(data), p.Key, maxParcelBytes), "")
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(linkTime)); err != nil {
		return err
	}
	_, _, err = l.conn.WriteMsgUnix(data, rights, nil)
	return err
}

// receive returns the next message, whose descriptors are the caller's; io.EOF is the other side's end.
func (l *link) receive() (parcel, error) {
	if l.data == nil {
		l.data = make([]byte, maxParcelBytes)
	}
	control := make([]byte, unix.CmsgSpace(4*maxParcelFiles))
	n, controls, _, _, err := l.conn.ReadMsgUnix(l.data, control)
	fds := rights(control[:controls])
	var p parcel
	if err == nil {
		err = json.Unmarshal(l.data[:n], &p)
	}
	if err != nil {
		closeAll(fds)
		return parcel{}, err
	}
	p.fds = fds
	return p, nil
}

func (l *link) close() error { return l.conn.Close() }

// file returns a duplicate of the descriptor that outlives an exec.
func (l *link) file() (fd int, err error) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	dupErr := raw.Control(func(own uintptr) { fd, err = unix.Dup(int(own)) })
	return fd, errors.Join(dupErr, err)
}

// rights returns the descriptors that came with a message.
func rights(control []byte) []int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	var all []int
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // a duplicate: nothing is lost with it
	}
}
