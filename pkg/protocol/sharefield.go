package protocol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
// see [Share.Check]. The error of a member that is not known here is an [*Error] with
// [ShareUnsupported]: who does not compare what the 101 confirms would be published open.
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
	if err == nil {
		err = decodeKnown(body, s)
	}
	if errors.Is(err, errMember) {
		return nil, &Error{
			Code: ShareUnsupported, Message: HeaderPolicy + ": " + err.Error(),
			Hint: "use a newer tunnel-server, or leave that out",
		}
	}
	if err != nil || !strings.HasPrefix(string(body), "{") {
		return nil, errors.New(HeaderPolicy + " is not a JSON object in base64url without padding")
	}
	return s, nil
}

var errMember = errors.New("the server does not know the member")

// decodeKnown decodes the one value that body is. The error is errMember, with the name,
// where it has a member that into has not.
func decodeKnown(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err != nil {
		// The package has no error of its own for that.
		if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
			return fmt.Errorf("%w %s", errMember, name)
		}
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more behind it")
	}
	return nil
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
