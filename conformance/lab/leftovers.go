package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// Snapshot is what this process holds of the kinds of things that a lab makes.
type Snapshot struct{ items map[string]bool }

// TakeSnapshot looks at: open namespaces and sockets, threads in another
// namespace, child processes, names in /run/netns, and the interfaces of the
// namespace that the process itself is in.
func TakeSnapshot() (Snapshot, error) {
	s := Snapshot{map[string]bool{}}
	return s, errors.Join(s.addFiles(), s.addThreads(), s.addChildren(), s.addPins(), s.addLinks())
}

// Leftovers lists, sorted, what is there now and was not when the snapshot was
// taken. It waits up to patience for it to go: threads and namespaces die a
// moment after they were let go.
func (s Snapshot) Leftovers(patience time.Duration) ([]string, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		now, err := TakeSnapshot()
		if err != nil {
			return nil, err
		}
		var left []string
		for item := range now.items {
			if !s.items[item] {
				left = append(left, item)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			slices.Sort(left)
			return left, nil
		}
	}
}

func (s Snapshot) addFiles() error {
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The folder's own descriptor is gone by now.
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(target, "net:[") || strings.HasPrefix(target, "socket:[")) {
			s.items["open file: "+target] = true
		}
	}
	return err
}

func (s Snapshot) addThreads() error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	threads, err := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		ns, err := os.Readlink("/proc/self/task/" + t.Name() + "/ns/net")
		if err == nil && ns != own {
			s.items["thread "+t.Name()+" in "+ns] = true
		}
	}
	return err
}

func (s Snapshot) addChildren() error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		text := string(b)
		end := strings.LastIndexByte(text, ')')
		fields := strings.Fields(text[end+1:])
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			s.items["child process: "+text[:end+1]] = true
		}
	}
	return err
}

func (s Snapshot) addPins() error {
	pins, err := ownPins()
	for _, p := range pins {
		s.items["name in "+netnsDir+": "+p.name] = true
	}
	return err
}

func (s Snapshot) addLinks() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		s.items["interface: "+l.Attrs().Name] = true
	}
	return nil
}

// RemovePins removes every name in /run/netns that hosts of this process hold:
// the way out for a signal handler. All else goes with the process.
func RemovePins() error {
	pins, err := ownPins()
	for _, p := range pins {
		err = errors.Join(err, p.remove())
	}
	return err
}
