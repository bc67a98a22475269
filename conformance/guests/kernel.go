package guests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ringwall/ringwall/core"
	"golang.org/x/sys/unix"
)

// kernelMetapackage depends on Debian's current kernel for virtual machines:
// small, and with every netfilter module there is.
const kernelMetapackage = "linux-image-cloud-amd64"

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string // as uname -r prints it
	Image   string // path of vmlinuz
	Modules string // folder of the release's modules
}

// CacheDir is where kernels and images are kept between runs: $CONFORMANCE_CACHE,
// or ringwall in the user's cache folder.
func CacheDir() (string, error) {
	dir := os.Getenv("CONFORMANCE_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a folder for guest kernels; set CONFORMANCE_CACHE: %w", err)
		}
		dir = filepath.Join(base, "ringwall")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// FetchKernel downloads and unpacks a kernel with apt, once: what the cache
// holds is used from then on. Processes that ask at the same time wait for
// the first.
func FetchKernel(ctx context.Context) (Kernel, error) {
	cache, err := CacheDir()
	if err != nil {
		return Kernel{}, err
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, "kernel.lock"))
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	dir := filepath.Join(cache, "kernel")
	if k, err := findKernel(dir); err == nil {
		return k, nil
	}
	if err := unpackKernel(ctx, cache, dir); err != nil {
		return Kernel{}, fmt.Errorf("fetch a guest kernel: %w", err)
	}
	return findKernel(dir)
}

func findKernel(dir string) (Kernel, error) {
	found, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return Kernel{}, fmt.Errorf("%s holds %d kernels, want one; remove the folder: %w", dir, len(found), core.ErrNotFound)
	}
	release := strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")
	k := Kernel{Release: release, Image: found[0], Modules: filepath.Join(dir, "lib", "modules", release)}
	if _, err := os.Stat(k.Modules); err != nil {
		return Kernel{}, err
	}
	return k, nil
}

// unpackKernel fills dir by a rename, so that a half-unpacked kernel is never
// found.
func unpackKernel(ctx context.Context, cache, dir string) error {
	work, err := os.MkdirTemp(cache, "kernel-*.tmp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	// apt drops its rights to download; without this it only warns.
	if err := os.Chmod(work, 0o777); err != nil {
		return err
	}
	pkg, err := kernelPackage(ctx)
	if err != nil {
		return err
	}
	if err := tool(ctx, work, "apt-get", "download", pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages: %w", pkg, len(debs), core.ErrNotFound)
	}
	root := filepath.Join(work, "root")
	if err := tool(ctx, work, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(root, dir)
}

// kernelPackage asks apt which package the metapackage stands for.
func kernelPackage(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", kernelMetapackage).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache depends %s: %w (run apt-get update)", kernelMetapackage, err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", fmt.Errorf("apt knows no package %s; run apt-get update: %w", kernelMetapackage, core.ErrNotFound)
}

// tool runs a program and shows what it said when it fails.
func tool(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// lockFile takes an exclusive lock that ends with the process at the latest.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if err := sleep(ctx, lockPoll); err != nil {
			f.Close()
			return nil, fmt.Errorf("wait for the lock on %s: %w", path, err)
		}
	}
}
