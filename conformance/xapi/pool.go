package xapi

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Options of a pool. The zero value is a pool of XCP-ng 8.2 whose password for
// root is "secret".
type Options struct {
	Password string
	Version  string // product_version; 8.2.1
	Backend  string // network_backend of its hosts; bridge
}

// Pool is the database that its hosts share.
type Pool struct {
	o Options

	mu         sync.Mutex
	changed    chan struct{} // closed and renewed with every change
	generation int64
	tables     map[string]map[Ref]*object // class in lower case
	gone       []tombstone
	sessions   map[string]session
	hosts      map[Ref]*Host
	domids     map[Ref]int64 // last one given, by host
	master     Ref
	epoch      int64 // of event tokens; grows with Restart
	calls      map[string]int
}

type object struct {
	fields           Record
	created, changed int64
}

type tombstone struct {
	class string
	ref   Ref
	at    int64
}

// NewPool makes a pool without hosts.
func NewPool(o Options) *Pool {
	if o.Password == "" {
		o.Password = "secret"
	}
	if o.Version == "" {
		o.Version = "8.2.1"
	}
	if o.Backend == "" {
		o.Backend = "bridge"
	}
	p := &Pool{o: o, changed: make(chan struct{}), generation: 1, tables: map[string]map[Ref]*object{},
		sessions: map[string]session{}, hosts: map[Ref]*Host{}, domids: map[Ref]int64{}, calls: map[string]int{}}
	for _, class := range []string{"pool", "host", "vm", "vif", "network", "pif", "task"} {
		p.tables[class] = map[Ref]*object{}
	}
	p.add("pool", Record{"uuid": newUUID(), "name_label": "", "master": Null, "other_config": Record{}})
	return p
}

// Calls says how often a method was called, refused calls included.
func (p *Pool) Calls(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

// Expire ends every session, as XAPI does after a day without use.
func (p *Pool) Expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.sessions)
	p.wake()
}

// Restart is the toolstack's: sessions and event tokens of before are void.
func (p *Pool) Restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.sessions)
	p.epoch++
	p.wake()
}

// SetMaster designates another master.
func (p *Pool) SetMaster(h *Host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.master = h.Ref
	for ref := range p.tables["pool"] {
		p.set("pool", ref, "master", h.Ref)
	}
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}

func newRef() Ref { return "OpaqueRef:" + newUUID() }

// wake lets event.from look again. All that follows wants p.mu held.
func (p *Pool) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Pool) touch() int64 {
	p.generation++
	p.wake()
	return p.generation
}

func (p *Pool) add(class string, fields Record) Ref {
	ref, at := newRef(), p.touch()
	p.tables[class][ref] = &object{fields, at, at}
	return ref
}

func (p *Pool) remove(class string, ref Ref) {
	if _, ok := p.tables[class][ref]; ok {
		delete(p.tables[class], ref)
		p.gone = append(p.gone, tombstone{class, ref, p.touch()})
	}
}

func (p *Pool) set(class string, ref Ref, field string, v any) {
	o := p.tables[class][ref]
	o.fields = maps.Clone(o.fields)
	o.fields[field] = v
	o.changed = p.touch()
}

func (p *Pool) field(class string, ref Ref, name string) any {
	if o := p.tables[class][ref]; o != nil {
		return o.fields[name]
	}
	return nil
}

// refs of a class that a field leads to, sorted.
func (p *Pool) where(class, field string, value any) (out []Ref) {
	for ref, o := range p.tables[class] {
		if o.fields[field] == value {
			out = append(out, ref)
		}
	}
	slices.Sort(out)
	return out
}
