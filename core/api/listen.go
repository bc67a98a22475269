package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
)

// Access says who may speak to the agent besides root.
type Access struct {
	Owner string // user name or id; empty = root
	Group string // group name or id; empty = nobody
}

// access is Access with ids.
type access struct {
	uid, gid int // gid -1 = nobody
}

func (a Access) resolve() (access, error) {
	out := access{gid: -1}
	if a.Owner != "" {
		id, err := strconv.Atoi(a.Owner)
		if err != nil {
			u, err := user.Lookup(a.Owner)
			if err != nil {
				return out, &core.FieldError{Path: "socket.owner", Value: a.Owner, Reason: "no such user"}
			}
			id, _ = strconv.Atoi(u.Uid)
		}
		out.uid = id
	}
	if a.Group != "" {
		id, err := strconv.Atoi(a.Group)
		if err != nil {
			g, err := user.LookupGroup(a.Group)
			if err != nil {
				return out, &core.FieldError{Path: "socket.group", Value: a.Group, Reason: "no such group"}
			}
			id, _ = strconv.Atoi(g.Gid)
		}
		out.gid = id
	}
	return out, nil
}

// admits says whether a peer may speak. SO_PEERCRED gives the peer's primary
// group only; its other groups are looked up by its user.
func (a access) admits(peer *unix.Ucred) bool {
	switch {
	case peer.Uid == 0, int(peer.Uid) == a.uid:
		return true
	case a.gid < 0:
		return false
	case int(peer.Gid) == a.gid:
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(peer.Uid)))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, strconv.Itoa(a.gid))
}

// listener removes its socket file when it closes, if it is still its own.
type listener struct {
	*net.UnixListener
	path  string
	inode uint64
	once  sync.Once
}

// listen makes the socket. It is made and given its mode aside, in a folder
// that only we can enter, and moved into place: at no moment can others
// connect, nor find it half made. ErrConflict: an agent listens already.
func listen(ctx context.Context, path string, a access) (*listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket's folder: %w", err)
	}
	if err := vacant(ctx, path); err != nil {
		return nil, err
	}
	aside, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer os.RemoveAll(aside)
	made := filepath.Join(aside, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	out := &listener{UnixListener: l, path: path}
	if err := out.place(made, a); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return out, nil
}

func (l *listener) place(made string, a access) error {
	mode, gid := fs.FileMode(0o600), os.Getgid()
	if a.gid >= 0 {
		mode, gid = 0o660, a.gid
	}
	if err := os.Chmod(made, mode); err != nil {
		return err
	}
	// The agent itself may run as somebody else than root in a test.
	if uid := os.Getuid(); uid == 0 || a.gid >= 0 {
		if uid == 0 {
			uid = a.uid
		}
		if err := os.Chown(made, uid, gid); err != nil {
			return err
		}
	}
	info, err := os.Stat(made)
	if err != nil {
		return err
	}
	l.inode = info.Sys().(*syscall.Stat_t).Ino
	return os.Rename(made, l.path)
}

// vacant makes sure that nobody listens at path. A file that is left of an
// agent that was killed is no hindrance; any other file is.
func vacant(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket; move it away: %w", path, core.ErrConflict)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another agent listens at %s; stop it first: %w", path, core.ErrConflict)
	}
	return nil
}

// Close stops listening and takes the file away, unless a successor has put
// its own there.
func (l *listener) Close() (err error) {
	l.once.Do(func() {
		if info, err := os.Lstat(l.path); err == nil && info.Sys().(*syscall.Stat_t).Ino == l.inode {
			_ = os.Remove(l.path)
		}
		err = l.UnixListener.Close()
	})
	return err
}

// peerOf asks the kernel who is at the other end.
func peerOf(c net.Conn) (*unix.Ucred, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("not a unix socket: %w", core.ErrInvalid)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, credErr
}
