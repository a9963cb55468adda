package protocol

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// SetPolicy writes s into h as a request for PTTH has it, see [HeaderPolicy]. A nil s
// writes nothing.
func (s *Share) SetPolicy(h http.Header) {
	if s == nil {
		return
	}
	if body, err := json.Marshal(s); err == nil { // there is nothing in it that JSON does not have
		h.Set(HeaderPolicy, base64.RawURLEncoding.EncodeToString(body))
	}
}

// ParsePolicy reads what SetPolicy wrote; nil where there is none. It is not checked,
// see [Share.Check].
func ParsePolicy(h http.Header) (*Share, error) {
	values := h.Values(HeaderPolicy)
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > 1 {
		return nil, errors.New(HeaderPolicy + " stands there twice")
	}
	body, err := base64.RawURLEncoding.DecodeString(values[0])
	s := new(Share)
	if err != nil || json.Unmarshal(body, s) != nil || !strings.HasPrefix(string(body), "{") {
		return nil, errors.New(HeaderPolicy + " is not a JSON object in base64url without padding")
	}
	return s, nil
}

// ConfirmPolicy writes the parts of s into h as the 101 has them.
func (s *Share) ConfirmPolicy(h http.Header) {
	if parts := s.Parts(); len(parts) > 0 {
		h.Set(HeaderPolicy, strings.Join(parts, ", "))
	}
}

// ConfirmedPolicy returns the parts that a 101 confirms.
func ConfirmedPolicy(h http.Header) (parts []string) {
	for _, v := range h.Values(HeaderPolicy) {
		for part := range strings.SplitSeq(v, ",") {
			parts = append(parts, strings.TrimSpace(part))
		}
	}
	return parts
}

// Enforced returns a [ShareUnsupported] error where parts, which the server confirmed, are not
// all of s: an older one ignores what it does not know, and would publish what is to be
// protected.
func (s *Share) Enforced(parts []string) error {
	missing := slices.DeleteFunc(s.Parts(), func(part string) bool { return slices.Contains(parts, part) })
	if len(missing) == 0 {
		return nil
	}
	return &Error{
		Code: ShareUnsupported, Message: "the server does not enforce " + strings.Join(missing, ", ") + ", so nothing was served",
		Hint: "use a newer tunnel-server, or leave that out",
	}
}
