// Package cpio writes the "new ASCII" cpio format (newc), the one that Linux
// unpacks as an initramfs: Documentation/driver-api/early-userspace/buffer-format.rst.
package cpio

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// File modes, as in stat(2).
const (
	modeFile    = 0o100000
	modeDir     = 0o040000
	modeSymlink = 0o120000
	modeChar    = 0o020000
)

// Writer writes one archive. The first error sticks and Close returns it.
type Writer struct {
	w     io.Writer
	inode uint32
	pos   int64
	dirs  map[string]bool
	err   error
}

// NewWriter writes an archive to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, dirs: map[string]bool{".": true}}
}

// File adds a regular file, and the folders above it.
func (w *Writer) File(name string, perm uint32, content []byte) {
	w.entry(name, header{mode: modeFile | perm&0o7777}, content)
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string) {
	w.entry(name, header{mode: modeSymlink | 0o777}, []byte(target))
}

// CharDevice adds a character device node.
func (w *Writer) CharDevice(name string, perm, major, minor uint32) {
	w.entry(name, header{mode: modeChar | perm&0o7777, major: major, minor: minor}, nil)
}

// Dir adds a folder, and those above it. Adding one twice is fine.
func (w *Writer) Dir(name string) {
	name = clean(name)
	if w.dirs[name] {
		return
	}
	w.dirs[name] = true
	w.entry(name, header{mode: modeDir | 0o755}, nil)
}

// Close ends the archive.
func (w *Writer) Close() error {
	w.inode = 0
	w.write(header{}.encode("TRAILER!!!", 0), "TRAILER!!!", nil)
	return w.err
}

// header holds the fields that vary; owner is root and times are zero, so that
// equal content gives equal bytes.
type header struct{ mode, inode, major, minor uint32 }

func (h header) encode(name string, size int) string {
	links := 1
	return fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		h.inode, h.mode, 0, 0, links, 0, size, 0, 0, h.major, h.minor, len(name)+1, 0)
}

func (w *Writer) entry(name string, h header, content []byte) {
	name = clean(name)
	if dir := path.Dir(name); dir != "." {
		w.Dir(dir)
	}
	w.inode++
	h.inode = w.inode
	w.write(h.encode(name, len(content)), name, content)
}

// write pads name and content to four bytes each, counted from the start of
// the archive.
func (w *Writer) write(head, name string, content []byte) {
	w.put([]byte(head + name + "\x00"))
	w.pad()
	w.put(content)
	w.pad()
}

func (w *Writer) put(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.pos += int64(n)
	w.err = err
}

func (w *Writer) pad() {
	w.put(make([]byte, (4-w.pos%4)%4))
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}
