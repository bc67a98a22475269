package process

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/ringwall/ringwall/core"
)

// Resolve follows path to a program that nobody but root, or the user this
// process runs as, can replace: neither the file nor any directory or link on
// the way. Checking a sum and executing are two steps; this is what makes the
// second see the file of the first.
func Resolve(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", refuse(path, "is not an absolute path", "write it in full")
	}
	rest := strings.Split(filepath.Clean(path), "/")[1:]
	at := "/"
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		fi, err := os.Lstat(next)
		if err != nil {
			return "", fmt.Errorf("plugin program %s: %w: %w", path, err, core.ErrNotFound)
		}
		if err := safeDirectory(at, len(rest) == 1); err != nil {
			return "", err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			at, rest = next, rest[1:]
			continue
		}
		if links++; links > 40 {
			return "", refuse(path, "is a loop of links", "point it at a file")
		}
		to, err := os.Readlink(next)
		if err != nil {
			return "", fmt.Errorf("plugin program: %w", err)
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(filepath.Clean(to), "/"), "/"), rest[1:]...)
	}
	fi, err := os.Stat(at)
	if err != nil {
		return "", fmt.Errorf("plugin program: %w", err)
	}
	switch {
	case !fi.Mode().IsRegular():
		return "", refuse(at, "is not a file", "name the program itself")
	case fi.Mode()&0o111 == 0:
		return "", refuse(at, "is not executable", "chmod 0755 "+at)
	case fi.Mode()&0o022 != 0 || !ownedByUs(fi):
		return "", refuse(at, "can be changed by others than root", "chown root:root "+at+" && chmod 0755 "+at)
	}
	return at, nil
}

// safeDirectory checks one directory on the way. A sticky one (/tmp) keeps
// others from replacing what is root's, so it may lie on the way, but not hold
// the program: a new file could be put there under the name of a missing one.
func safeDirectory(dir string, holder bool) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("plugin directory: %w", err)
	}
	writable := fi.Mode()&0o022 != 0
	sticky := fi.Mode()&fs.ModeSticky != 0
	if !ownedByUs(fi) || writable && (holder || !sticky) {
		return refuse(dir, "can be written by others than root", "chown root:root "+dir+" && chmod 0755 "+dir)
	}
	return nil
}

func ownedByUs(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

func refuse(path, why, way string) error {
	return fmt.Errorf("%s %s, so nothing is started from it (%s): %w", path, why, way, core.ErrInvalid)
}

// Verify gives the SHA-256 sum of the program, in hexadecimal. With pins, the
// sum must be one of them.
func Verify(path string, pins []string) (string, error) {
	for _, pin := range pins {
		want, err := hex.DecodeString(pin)
		if err != nil || len(want) != sha256.Size {
			return "", fmt.Errorf("%q is not a SHA-256 sum: %w", pin, core.ErrInvalid)
		}
		// A new hash for every check: SecureConfig does not reset it.
		ok, err := (&goplugin.SecureConfig{Checksum: want, Hash: sha256.New()}).Check(path)
		if err != nil {
			return "", fmt.Errorf("plugin program: %w", err)
		}
		if ok {
			return hex.EncodeToString(want), nil
		}
	}
	sum, err := sumOf(path)
	if err != nil || len(pins) == 0 {
		return sum, err
	}
	if slices.Contains(pins, sum) {
		return "", fmt.Errorf("%s changed while it was read: %w", path, core.ErrNotReady)
	}
	return sum, fmt.Errorf("%s has the SHA-256 sum %s, which is not pinned; install the release that is, or add the sum under plugins: in the config: %w", path, sum, core.ErrInvalid)
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("plugin program: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("plugin program: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// maxSocketPath is what sockaddr_un holds, less its NUL.
const maxSocketPath = 107

// PrivateDirectory makes dir, or checks that it is there and ours alone: the
// plugins' sockets live in it.
func PrivateDirectory(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%s: the directory for plugin sockets needs an absolute path: %w", dir, core.ErrInvalid)
	}
	// go-plugin adds /plugin-dirN/pluginN, each N up to 10 digits.
	if len(dir)+len("/plugin-dir0123456789/plugin0123456789") > maxSocketPath {
		return fmt.Errorf("%s: too long for sockets (unix(7) takes %d bytes in all); choose a shorter one: %w", dir, maxSocketPath, core.ErrInvalid)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory for plugin sockets: %w", err)
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("directory for plugin sockets: %w", err)
	}
	if !fi.IsDir() || fi.Mode()&0o022 != 0 || !ownedByUs(fi) {
		return fmt.Errorf("%s: others can write there; use a directory of the agent's own (chmod 0700): %w", dir, core.ErrInvalid)
	}
	return nil
}
