package cloudstack

import "sync"

// locks are mutexes by name, kept while somebody has them.
type locks struct {
	mu   sync.Mutex
	held map[string]*named
}

type named struct {
	sync.Mutex
	users int
}

// lock waits for the name and gives what lets go of it.
func (l *locks) lock(name string) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*named{}
	}
	n := l.held[name]
	if n == nil {
		n = &named{}
		l.held[name] = n
	}
	n.users++
	l.mu.Unlock()
	n.Lock()
	return func() {
		n.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if n.users--; n.users == 0 {
			delete(l.held, name)
		}
	}
}
