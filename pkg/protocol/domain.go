package protocol

import (
	"strconv"
	"strings"
)

// MaxDomain is the longest domain in bytes (RFC 1035, section 2.3.4, as text
// without the root's dot).
const MaxDomain = 253

// CheckDomain returns an [*Error] with [DomainInvalid] if domain is not a host
// name that a visitor may call and a name server may know, in its one canonical
// form: labels that [CheckName] takes (lower case, an international label as its
// A-label), two of them at least, without the root's dot. An address is none, and
// so is what a parser may take for one: a name whose last label is a number. Nor
// are localhost and what is below it.
func CheckDomain(domain string) error {
	bad := func(why string) error {
		return &Error{
			Code:    DomainInvalid,
			Message: "domain " + strconv.Quote(domain[:min(len(domain), MaxDomain)]) + " " + why,
			Hint:    "give a whole host name such as app.example.org: no scheme, port, address or wildcard",
		}
	}
	if len(domain) > MaxDomain {
		return bad("has " + strconv.Itoa(len(domain)) + " bytes")
	}
	labels := strings.Split(domain, ".")
	for _, label := range labels {
		if CheckName(label) != nil {
			return bad("is not a host name in lower case, with international labels as A-labels")
		}
	}
	last := labels[len(labels)-1]
	switch {
	case len(labels) < 2:
		return bad("has one label only")
	case '0' <= last[0] && last[0] <= '9':
		return bad("may be taken for an address")
	case last == "localhost":
		return bad("is the visitor's own machine")
	}
	return nil
}
