package nftables

import (
	"errors"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// blame ties a refusal of the kernel to the NICs and groups whose objects it
// names, so that the engine can go on without them.
func blame(err error, r core.Ruleset) error {
	var refused nft.Errors
	if !errors.As(err, &refused) {
		return err
	}
	out := &core.ObjectError{Err: err}
	for _, e := range refused {
		words := strings.Fields(e.Object)
		for k, n := range r.NICs {
			if names(words, n.Devices) {
				out.NICs = append(out.NICs, k)
			}
		}
		for g := range r.Groups {
			for _, w := range words {
				if strings.HasPrefix(w, "group/") && (strings.HasSuffix(w, "/"+g) || strings.Contains(w, "/"+g+"/")) ||
					w == "members4/"+g || w == "members6/"+g {
					out.Groups = append(out.Groups, g)
					break
				}
			}
		}
	}
	if len(out.NICs) == 0 && len(out.Groups) == 0 {
		return err
	}
	return out
}

func names(words, devices []string) bool {
	for _, w := range words {
		for _, d := range devices {
			if strings.Trim(w, `"`) == d {
				return true
			}
		}
	}
	return false
}

// nicIn finds the NIC that an object's name is about, if any.
func (b *Backend) nicIn(object string) core.NICKey {
	words := strings.Fields(object)
	for k, n := range b.enforced.ruleset.NICs {
		if names(words, n.Devices) {
			return k
		}
	}
	return core.NICKey{}
}
