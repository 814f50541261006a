package testkit

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// PowerDisk is a mounted file system that can lose its power. What a program wrote and did not fsync is then gone, or
// half of it, or the entry of its folder, as with a real disk; kill -9 of the program alone takes nothing.
type PowerDisk struct {
	Dir    string // where it is mounted
	disk   *powerDisk
	server *fuse.Server
}

// NewPowerDisk mounts an empty PowerDisk in a new folder until the end of t. It needs root and /dev/fuse; without root the
// test is skipped, as root it fails when there is no /dev/fuse.
func NewPowerDisk(t testing.TB) *PowerDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a disk whose power can be cut is mounted by FUSE, which needs root: run this test as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatalf("a disk whose power can be cut needs /dev/fuse (modprobe fuse; docker run --device /dev/fuse --cap-add SYS_ADMIN): %v", err)
	}
	p := &PowerDisk{Dir: TempDir(t), disk: newPowerDisk()}
	p.mount(t)
	t.Cleanup(func() { p.unmount(t) })
	return p
}

// Cut takes the power away and gives it back. Programs that use the disk must have been killed before. The same seed and
// the same history leave the same bytes.
func (p *PowerDisk) Cut(t testing.TB, seed uint64) {
	t.Helper()
	p.unmount(t) // the kernel's cache goes with it
	p.disk.cut(seed)
	p.mount(t)
}

// Limit bounds what the disk takes to bytesPerSecond; 0 lifts the bound.
func (p *PowerDisk) Limit(bytesPerSecond int64) {
	p.disk.mu.Lock()
	defer p.disk.mu.Unlock()
	p.disk.rate = bytesPerSecond
}

func (p *PowerDisk) mount(t testing.TB) {
	t.Helper()
	now := time.Duration(0) // nothing is cached
	server, err := fs.Mount(p.Dir, &diskNode{disk: p.disk, file: p.disk.root}, &fs.Options{
		EntryTimeout: &now, AttrTimeout: &now, NegativeTimeout: &now,
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "powerdisk", Name: "powerdisk", MaxWrite: 1 << 20},
	})
	if err != nil {
		t.Fatalf("mount a disk whose power can be cut: %v", err)
	}
	p.server = server
}

func (p *PowerDisk) unmount(t testing.TB) {
	t.Helper()
	if err := p.server.Unmount(); err != nil {
		t.Fatalf("unmount %s: %v", p.Dir, err)
	}
	p.server.Wait()
}

// diskNode is a diskFile as the kernel knows it.
type diskNode struct {
	fs.Inode
	disk *powerDisk
	file *diskFile
}

var (
	_ fs.NodeLookuper  = (*diskNode)(nil)
	_ fs.NodeGetattrer = (*diskNode)(nil)
	_ fs.NodeSetattrer = (*diskNode)(nil)
	_ fs.NodeReaddirer = (*diskNode)(nil)
	_ fs.NodeMkdirer   = (*diskNode)(nil)
	_ fs.NodeCreater   = (*diskNode)(nil)
	_ fs.NodeUnlinker  = (*diskNode)(nil)
	_ fs.NodeRmdirer   = (*diskNode)(nil)
	_ fs.NodeRenamer   = (*diskNode)(nil)
	_ fs.NodeOpener    = (*diskNode)(nil)
	_ fs.NodeReader    = (*diskNode)(nil)
	_ fs.NodeWriter    = (*diskNode)(nil)
	_ fs.NodeFsyncer   = (*diskNode)(nil)
	_ fs.NodeStatfser  = (*diskNode)(nil)
)

func (n *diskNode) child(ctx context.Context, f *diskFile, out *fuse.EntryOut) *fs.Inode {
	fill(f, &out.Attr)
	return n.NewInode(ctx, &diskNode{disk: n.disk, file: f}, fs.StableAttr{Mode: f.mode & syscall.S_IFMT, Ino: f.id})
}

func fill(f *diskFile, a *fuse.Attr) {
	a.Ino, a.Mode, a.Size, a.Nlink = f.id, f.mode, uint64(len(f.data)), 1
	a.Blocks = (a.Size + 511) / 512
	a.SetTimes(nil, &f.mtime, &f.mtime)
}

// Lookup implements fs.NodeLookuper.
func (n *diskNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f := n.file.entries[name]
	if f == nil {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, f, out), 0
}

// Getattr implements fs.NodeGetattrer.
func (n *diskNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	fill(n.file, &out.Attr)
	return 0
}

// Setattr implements fs.NodeSetattrer.
func (n *diskNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		n.file.change(diskWrite{off: int64(size)})
	}
	if mode, ok := in.GetMode(); ok {
		n.file.mode = n.file.mode&syscall.S_IFMT | mode&^uint32(syscall.S_IFMT)
	}
	if mtime, ok := in.GetMTime(); ok {
		n.file.mtime = mtime
	}
	fill(n.file, &out.Attr)
	return 0
}

// Readdir implements fs.NodeReaddirer.
func (n *diskNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	var list []fuse.DirEntry
	for name, f := range n.file.entries {
		list = append(list, fuse.DirEntry{Name: name, Mode: f.mode, Ino: f.id})
	}
	return fs.NewListDirStream(list), 0
}

func (n *diskNode) make(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) *fs.Inode {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f := n.disk.newFile(mode)
	n.file.move(diskMove{name: name, file: f})
	return n.child(ctx, f, out)
}

// Mkdir implements fs.NodeMkdirer.
func (n *diskNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, syscall.S_IFDIR|mode, out), 0
}

// Create implements fs.NodeCreater.
func (n *diskNode) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return n.make(ctx, name, syscall.S_IFREG|mode, out), nil, 0, 0
}

func (n *diskNode) remove(name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f := n.file.entries[name]
	switch {
	case f == nil:
		return syscall.ENOENT
	case f.isDir() && len(f.entries) > 0:
		return syscall.ENOTEMPTY
	}
	n.file.move(diskMove{name: name})
	return 0
}

// Unlink implements fs.NodeUnlinker.
func (n *diskNode) Unlink(_ context.Context, name string) syscall.Errno { return n.remove(name) }

// Rmdir implements fs.NodeRmdirer.
func (n *diskNode) Rmdir(_ context.Context, name string) syscall.Errno { return n.remove(name) }

// Rename implements fs.NodeRenamer. In one folder it happens or does not; between two each half is on its own.
func (n *diskNode) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, _ uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	to, ok := parent.(*diskNode)
	f := n.file.entries[name]
	if !ok || f == nil {
		return syscall.ENOENT
	}
	if to.file == n.file {
		n.file.move(diskMove{name: newName, file: f, also: name})
		return 0
	}
	to.file.move(diskMove{name: newName, file: f})
	n.file.move(diskMove{name: name})
	return 0
}

// Open implements fs.NodeOpener.
func (n *diskNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		n.disk.mu.Lock()
		defer n.disk.mu.Unlock()
		n.file.change(diskWrite{})
	}
	return nil, 0, 0
}

// Read implements fs.NodeReader.
func (n *diskNode) Read(_ context.Context, _ fs.FileHandle, into []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if off >= int64(len(n.file.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(into[:copy(into, n.file.data[off:])]), 0
}

// Write implements fs.NodeWriter.
func (n *diskNode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.disk.mu.Lock()
	rate := n.disk.rate
	n.file.change(diskWrite{off: off, data: append([]byte{}, data...)})
	n.disk.mu.Unlock()
	if rate > 0 {
		<-time.After(time.Duration(len(data)) * time.Second / time.Duration(rate))
	}
	return uint32(len(data)), 0 //nolint:gosec // the kernel asks for 1 MiB at most
}

// Fsync implements fs.NodeFsyncer, for files and folders.
func (n *diskNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.file.sync()
	return 0
}

// Statfs implements fs.NodeStatfser: there is always room.
func (n *diskNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const blocks = 1 << 24
	out.Bsize, out.Frsize, out.NameLen = page, page, 255
	out.Blocks, out.Bfree, out.Bavail = blocks, blocks, blocks
	return 0
}
