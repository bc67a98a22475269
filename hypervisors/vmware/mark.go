package vmware

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// mark is what a port group of ours says of itself in its description. It is
// there from the call that makes the port group on, so that nothing of ours is
// ever without it.
//
//	Kept by ringwall, do not edit. ringwall/1 vlan=100 segment=community id=2001 own=2001 group=web
type mark struct {
	Segment
	ID  int   // the VLAN id that its ports use: the secondary's, or the primary's
	Own []int // ids of private VLAN entries that we made; sorted
	// Ruleset is what is enforced, written on the closed port group when all
	// of it is.
	Ruleset core.Fingerprint
}

const (
	markHead    = "Kept by ringwall, do not edit. "
	markVersion = "ringwall/1"
)

func (m mark) String() string {
	own := make([]string, len(m.Own))
	for i, id := range m.Own {
		own[i] = strconv.Itoa(id)
	}
	text := fmt.Sprintf("%s%s vlan=%d segment=%s id=%d own=%s", markHead, markVersion, m.VLAN, m.Kind, m.ID, strings.Join(own, ","))
	if m.Group != "" {
		text += " group=" + m.Group
	}
	if m.Ruleset != (core.Fingerprint{}) {
		text += " ruleset=" + m.Ruleset.String()
	}
	return text
}

func (m mark) equal(o mark) bool {
	return m.Segment == o.Segment && m.ID == o.ID && slices.Equal(m.Own, o.Own) && m.Ruleset == o.Ruleset
}

// parseMark gives nil for a description that is not exactly what String writes:
// a port group that somebody has edited is nobody's to remove.
func parseMark(description string) *mark {
	text, ours := strings.CutPrefix(description, markHead+markVersion+" ")
	if !ours {
		return nil
	}
	var m mark
	for field := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "vlan":
			m.VLAN, _ = strconv.Atoi(value)
		case "segment":
			m.Kind = Kind(value)
		case "id":
			m.ID, _ = strconv.Atoi(value)
		case "own":
			for s := range strings.SplitSeq(value, ",") {
				if id, err := strconv.Atoi(s); err == nil {
					m.Own = append(m.Own, id)
				}
			}
		case "group":
			m.Group = value
		case "ruleset":
			_ = m.Ruleset.UnmarshalText([]byte(value))
		}
	}
	if m.String() != description {
		return nil
	}
	return &m
}
