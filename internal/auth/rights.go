package auth

import (
	"path"
	"strings"
)

// Rights are what an identity may claim. The zero value is nothing at all. They
// are asked for at each claim, and may have changed since the one before.
type Rights struct {
	// Names are patterns of the names below the server's domain, in which * stands
	// for any run of characters: "demo", "pr-*", "*".
	Names []string
	// Domains are the custom domains that need no proof: a domain as
	// [protocol.CheckDomain] has it, or "*." and one, which is each name that has one
	// label more.
	Domains []string
}

// anyName are the patterns of who may have each name.
func anyName() []string { return []string{"*"} }

// Name reports whether name may be claimed below the server's domain.
func (r Rights) Name(name string) bool {
	for _, pattern := range r.Names {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

// Domain reports whether a custom domain may be claimed without another proof.
func (r Rights) Domain(domain string) bool {
	for _, pattern := range r.Domains {
		parent, wild := strings.CutPrefix(pattern, "*.")
		if !wild && domain == pattern {
			return true
		}
		if label, below, ok := strings.Cut(domain, "."); wild && ok && label != "" && below == parent {
			return true
		}
	}
	return false
}

// Rights implements [Authenticator]: every name, for every identity but the zero
// value. A custom domain needs proof.
func (Anonymous) Rights(id Identity) Rights {
	if id == (Identity{}) {
		return Rights{}
	}
	return Rights{Names: anyName()}
}

// Rights implements [Authenticator]: what the file says of id's token or line,
// as it was when it could be read last.
func (t *Tokens) Rights(id Identity) Rights {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	known, _ := t.held.of(id)
	return known.rights
}
