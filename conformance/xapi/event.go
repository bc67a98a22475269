package xapi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// eventFrom is event.from(session, classes, token, timeout).
func (p *Pool) eventFrom(ctx context.Context, session string, classes []string, token string, timeout time.Duration) (any, error) {
	deadline := time.NewTimer(min(timeout, time.Minute))
	defer deadline.Stop()
	for {
		p.mu.Lock()
		if _, ok := p.sessions[session]; !ok {
			p.mu.Unlock()
			return nil, fail("SESSION_INVALID", session)
		}
		since, err := p.parseToken(token)
		if err != nil {
			p.mu.Unlock()
			return nil, err
		}
		events, changed := p.since(since, classes), p.changed
		answer := Record{"events": events, "token": p.token(), "valid_ref_counts": p.counts()}
		p.mu.Unlock()
		if len(events) > 0 {
			return answer, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return answer, nil
		}
	}
}

func (p *Pool) token() string { return fmt.Sprintf("%020d,%020d", p.generation, p.epoch) }

func (p *Pool) parseToken(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	a, b, _ := strings.Cut(s, ",")
	since, err := strconv.ParseInt(a, 10, 64)
	epoch, err2 := strconv.ParseInt(b, 10, 64)
	if err != nil || err2 != nil {
		return 0, fail("EVENT_FROM_TOKEN_PARSE_FAILURE", s)
	}
	if epoch != p.epoch {
		return 0, fail("EVENTS_LOST")
	}
	return since, nil
}

func (p *Pool) counts() Record {
	out := Record{}
	for class, table := range p.tables {
		out[class] = int64(len(table))
	}
	return out
}

func (p *Pool) since(at int64, classes []string) []any {
	type event struct {
		at int64
		Record
	}
	var list []event
	add := func(class string, ref Ref, at int64, operation string, snapshot Record) {
		if !subscribed(classes, class, ref) {
			return
		}
		r := Record{"id": at, "timestamp": "0.", "class": class, "operation": operation, "ref": ref, "obj_uuid": ""}
		if snapshot != nil {
			r["snapshot"], r["obj_uuid"] = snapshot, snapshot["uuid"]
		}
		list = append(list, event{at, r})
	}
	for class, table := range p.tables {
		for ref, o := range table {
			switch {
			case o.created > at:
				add(class, ref, o.changed, "add", o.fields)
			case o.changed > at:
				add(class, ref, o.changed, "mod", o.fields)
			}
		}
	}
	if at > 0 {
		for _, t := range p.gone {
			if t.at > at {
				add(t.class, t.ref, t.at, "del", nil)
			}
		}
	}
	slices.SortFunc(list, func(a, b event) int { return int(a.at - b.at) })
	out := make([]any, len(list))
	for i, e := range list {
		out[i] = plain(e.Record)
	}
	return out
}

func subscribed(classes []string, class string, ref Ref) bool {
	return slices.ContainsFunc(classes, func(c string) bool {
		c, only, one := strings.Cut(c, "/")
		return c == "*" || strings.EqualFold(c, class) && (!one || only == ref)
	})
}

// Classes lists those that the pool has, in lower case.
func (p *Pool) Classes() []string { return slices.Sorted(maps.Keys(p.tables)) }
