package protocol

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Bounds of a [Share]. All of it has to fit into a [MaxMessage], too.
const (
	MaxUsers  = 100       // of BasicAuth
	MaxCIDRs  = 256       // of each list
	MaxEdits  = 50        // names of one direction
	MaxTTL    = 10 * year // of TTL
	maxUser   = 255       // bytes of a user's name
	maxEdit   = 4096      // bytes of a field's value
	maxFields = 16 << 10  // bytes of all fields of one direction, as name + value + 4

	year = 365 * 24 * time.Hour
)

// Share is who may visit an endpoint, how long, and what is done to what passes. Every
// part is carried out at the server's edge. A server confirms each in [Bound]: one that
// it left out must not count as being in force.
//
// A visitor is admitted by one of BasicAuth, or by a link; without both by neither.
// Allow, Deny and TTL hold for everyone. The other parts are of KindHTTP alone.
type Share struct {
	// BasicAuth are who may visit, by RFC 7617.
	BasicAuth []User `json:"basic_auth,omitempty"`
	// Link is the key that verifies share links, see [SignLink].
	Link []byte `json:"share_link,omitempty"`
	// Allow are the only addresses that may visit; none: all. Deny are those that may
	// not, also where Allow has them.
	Allow []netip.Prefix `json:"allow_cidr,omitempty"`
	Deny  []netip.Prefix `json:"deny_cidr,omitempty"`
	// TTL is for how many milliseconds from now the endpoint lives; 0: no end.
	TTL int64 `json:"ttl,omitempty"`
	// NoIndex keeps search engines away: X-Robots-Tag, and a /robots.txt in the app's
	// place.
	NoIndex bool `json:"noindex,omitempty"`
	// Request changes requests last, Response answers as if the app had made them so.
	Request  *Edits `json:"request_headers,omitempty"`
	Response *Edits `json:"response_headers,omitempty"`
}

// Edits are changes of a header section.
type Edits struct {
	Remove []string `json:"remove,omitempty"` // names
	Set    []Field  `json:"set,omitempty"`    // each name's come in place of all that were there
}

// Field is one field of a header section.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Parts are the names of what s has, sorted, as its JSON has them. What is new in a later
// version gets a name of its own there, or an older server would confirm it. A nil Share
// has none.
func (s *Share) Parts() []string {
	if s == nil {
		return nil
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil // there is nothing in it that JSON does not have
	}
	parts := make(map[string]json.RawMessage)
	json.Unmarshal(body, &parts)
	return slices.Sorted(maps.Keys(parts))
}

// Same reports whether s and t are one policy, whatever is left of its time to live.
func (s *Share) Same(t *Share) bool {
	if s == nil || t == nil {
		return s == t
	}
	a, b := *s, *t
	a.TTL, b.TTL = min(s.TTL, 1), min(t.TTL, 1)
	return reflect.DeepEqual(a, b)
}

// Check returns an error if s can't be carried out for an endpoint of kind: the cause,
// and what is wrong. A nil Share is right.
func (s *Share) Check(kind Kind) error {
	if s == nil {
		return nil
	}
	if kind != "" && kind != KindHTTP {
		for _, part := range s.Parts() {
			if part != "allow_cidr" && part != "deny_cidr" && part != "ttl" {
				return fmt.Errorf("%s is for endpoints of kind http alone, and this is %s", part, kind)
			}
		}
	}
	if s.TTL < 0 || s.TTL > MaxTTL.Milliseconds() {
		return fmt.Errorf("a time to live of %d ms is not between 0 and %v", s.TTL, MaxTTL)
	}
	if n := len(s.Link); n != 0 && n != linkKeySize {
		return fmt.Errorf("a link's key has %d bytes, not %d", n, linkKeySize)
	}
	for _, list := range [][]netip.Prefix{s.Allow, s.Deny} {
		if err := checkCIDRs(list); err != nil {
			return err
		}
	}
	if err := checkUsers(s.BasicAuth); err != nil {
		return err
	}
	if err := s.Request.check(CheckRequestField); err != nil {
		return err
	}
	return s.Response.check(CheckResponseField)
}

func checkCIDRs(list []netip.Prefix) error {
	if len(list) > MaxCIDRs {
		return fmt.Errorf("%d networks are more than %d", len(list), MaxCIDRs)
	}
	for _, p := range list {
		// Addresses are compared as IPv4 where they are that: such a one would match none.
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("network %q is not such as 192.0.2.0/24 or 2001:db8::/32", p)
		}
	}
	return nil
}

func (e *Edits) check(name func(string) error) error {
	if e == nil {
		return nil
	}
	if n := len(e.Remove) + len(e.Set); n > MaxEdits {
		return fmt.Errorf("%d changes of header fields are more than %d", n, MaxEdits)
	}
	size := 0
	for _, removed := range e.Remove {
		if err := name(removed); err != nil {
			return err
		}
	}
	for _, f := range e.Set {
		if err := name(f.Name); err != nil {
			return err
		}
		if len(f.Value) > maxEdit || strings.TrimSpace(f.Value) != f.Value || !httpguts.ValidHeaderFieldValue(f.Value) {
			return fmt.Errorf("the value for header field %s is too long, or has a control character or space around it", f.Name)
		}
		size += len(f.Name) + len(f.Value) + 4
	}
	if size > maxFields {
		return fmt.Errorf("header fields of %d bytes are more than %d", size, maxFields)
	}
	return nil
}

// CheckRequestField returns an error if a header field of a request is not an owner's
// to change: how it is framed, and what the tunnel says of the visitor.
func CheckRequestField(name string) error {
	spelled, err := checkField(name)
	switch {
	case err != nil:
		return err
	case spelled == "Host":
		return fmt.Errorf("header field %s says which app is meant: use --host-header", name)
	case spelled == "Expect":
		return fmt.Errorf("header field %s can't be changed: it is about the transfer", name)
	case strings.HasPrefix(spelled, "X-Forwarded"), spelled == "Forwarded", spelled == "X-Real-Ip":
		return fmt.Errorf("header field %s can't be changed: it is the tunnel's word on who the visitor is", name)
	}
	return nil
}

// CheckResponseField is CheckRequestField for answers.
func CheckResponseField(name string) error {
	_, err := checkField(name)
	return err
}

// checkField returns how programs that take an underscore for a hyphen spell name.
func checkField(name string) (spelled string, err error) {
	if len(name) > maxUser || !httpguts.ValidHeaderFieldName(name) {
		return "", fmt.Errorf("%.300q is not the name of a header field", name)
	}
	spelled = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	switch spelled {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Content-Length":
		return "", fmt.Errorf("header field %s can't be changed: it is about the connection or the transfer", name)
	}
	switch {
	case strings.HasPrefix(spelled, "Tunnel-"):
		return "", fmt.Errorf("header field %s can't be changed: it is the tunnel's own", name)
	case strings.HasPrefix(spelled, "Sec-Websocket-"):
		return "", fmt.Errorf("header field %s can't be changed: it is of a handshake", name)
	}
	return spelled, nil
}
