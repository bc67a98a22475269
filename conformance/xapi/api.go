package xapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

type session struct {
	host Ref // where it was opened
}

func asFailure(err error) Failure {
	var f Failure
	if errors.As(err, &f) {
		return f
	}
	return fail("INTERNAL_ERROR", err.Error())
}

// arguments reads a call's parameters.
type arguments struct {
	list []any
	err  error
}

func (a *arguments) next() any {
	if len(a.list) == 0 {
		a.err = fail("MESSAGE_PARAMETER_COUNT_MISMATCH")
		return nil
	}
	v := a.list[0]
	a.list = a.list[1:]
	return v
}

func (a *arguments) text() string {
	v := a.next()
	s, ok := v.(string)
	if !ok && a.err == nil {
		a.err = fail("FIELD_TYPE_ERROR", fmt.Sprint(v))
	}
	return s
}

func (a *arguments) float() float64 {
	switch v := a.next().(type) {
	case float64:
		return v
	case string: // an XML-RPC integer
		f, err := strconv.ParseFloat(v, 64)
		if err == nil {
			return f
		}
	}
	if a.err == nil {
		a.err = fail("FIELD_TYPE_ERROR", "timeout")
	}
	return 0
}

func (a *arguments) texts() (out []string) {
	list, ok := a.next().([]any)
	if !ok && a.err == nil {
		a.err = fail("FIELD_TYPE_ERROR", "a list is wanted")
	}
	for _, v := range list {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

func (a *arguments) record() Record {
	r, ok := a.next().(Record)
	if !ok && a.err == nil {
		a.err = fail("FIELD_TYPE_ERROR", "a map is wanted")
	}
	return r
}

// call answers one call that came in at a host. local: over its unix socket.
func (p *Pool) call(ctx context.Context, at *Host, local bool, method string, params []any) (any, error) {
	p.mu.Lock()
	p.calls[method]++
	p.mu.Unlock()
	a := &arguments{list: params}
	class, name, _ := strings.Cut(method, ".")
	class = strings.ToLower(class)
	if class == "session" && name == "login_with_password" {
		return p.login(at, local, a)
	}
	id := a.text()
	if a.err != nil {
		return nil, a.err
	}
	p.mu.Lock()
	_, ok := p.sessions[id]
	p.mu.Unlock()
	if !ok {
		return nil, fail("SESSION_INVALID", id)
	}
	switch method {
	case "event.from":
		classes, token, timeout := a.texts(), a.text(), a.float()
		if a.err != nil {
			return nil, a.err
		}
		return p.eventFrom(ctx, id, classes, token, time.Duration(timeout*float64(time.Second)))
	case "host.call_plugin":
		host, plugin, function, args := a.text(), a.text(), a.text(), a.record()
		if a.err != nil {
			return nil, a.err
		}
		return p.callPlugin(ctx, id, host, plugin, function, args)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch method {
	case "session.logout":
		delete(p.sessions, id)
		return "", nil
	case "session.get_this_host":
		return p.sessions[id].host, nil
	case "VM.start_on":
		return p.operate(a, func(vm Ref) { p.run(vm, a.text()) })
	case "VM.hard_shutdown", "VM.clean_shutdown":
		return p.operate(a, p.halt)
	case "VIF.plug", "VIF.unplug":
		return p.operate(a, func(vif Ref) { p.set("vif", vif, "currently_attached", name == "plug") })
	}
	if _, ok := p.tables[class]; !ok {
		return nil, fail("MESSAGE_METHOD_UNKNOWN", method)
	}
	return p.generic(class, name, a)
}

// operate runs a change of the object that comes next.
func (p *Pool) operate(a *arguments, change func(Ref)) (any, error) {
	ref := a.text()
	if p.tables["vm"][ref] == nil && p.tables["vif"][ref] == nil {
		return nil, fail("HANDLE_INVALID", "VM", ref)
	}
	change(ref)
	return "", a.err
}

func (p *Pool) login(at *Host, local bool, a *arguments) (any, error) {
	user, password := a.text(), a.text()
	if a.err != nil {
		return nil, a.err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !local {
		if at.Ref != p.master {
			return nil, fail("HOST_IS_SLAVE", fmt.Sprint(p.field("host", p.master, "address")))
		}
		if user != "root" || password != p.o.Password {
			return nil, fail("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
		}
	}
	id := newRef()
	p.sessions[id] = session{at.Ref}
	return id, nil
}

// generic are the calls that every class has.
func (p *Pool) generic(class, name string, a *arguments) (any, error) {
	table := p.tables[class]
	switch name {
	case "get_all":
		return p.sorted(class), nil
	case "get_all_records":
		out := Record{}
		for ref, o := range table {
			out[ref] = o.fields
		}
		return out, nil
	case "get_by_uuid":
		uuid := a.text()
		if found := p.where(class, "uuid", uuid); len(found) == 1 {
			return found[0], a.err
		}
		return nil, fail("UUID_INVALID", class, uuid)
	case "get_by_name_label":
		return p.where(class, "name_label", a.text()), a.err
	}
	ref := a.text()
	o := table[ref]
	if a.err != nil || o == nil {
		return nil, fail("HANDLE_INVALID", class, ref)
	}
	if name == "get_record" {
		return o.fields, nil
	}
	verb, field := split(name)
	value, known := o.fields[field]
	if !known {
		return nil, fail("MESSAGE_METHOD_UNKNOWN", class+"."+name)
	}
	if verb == "get" {
		return value, nil
	}
	now, isMap := plain(value).(Record)
	if !isMap {
		return nil, fail("MESSAGE_METHOD_UNKNOWN", class+"."+name)
	}
	now = maps.Clone(now)
	switch verb {
	case "set":
		now = a.record()
	case "add_to":
		key, text := a.text(), a.text()
		if _, there := now[key]; there {
			return nil, fail("MAP_DUPLICATE_KEY", class, field, ref, key)
		}
		now[key] = text
	case "remove_from":
		delete(now, a.text())
	default:
		return nil, fail("MESSAGE_METHOD_UNKNOWN", class+"."+name)
	}
	if a.err == nil {
		p.set(class, ref, field, now)
	}
	return "", a.err
}

func split(name string) (verb, field string) {
	for _, v := range []string{"get", "set", "add_to", "remove_from"} {
		if f, ok := strings.CutPrefix(name, v+"_"); ok {
			return v, f
		}
	}
	return "", name
}
