package rig

import (
	"slices"
	"strconv"
	"strings"
)

// A Reading is what a byte stream from a visitor says to someone who takes RFC
// 9112 at its strictest: lines end in CRLF and are not folded, the framing is said
// once and in one way, and what can be read in two ways ends it.
type Reading struct {
	Requests []ReadRequest // in order; the last may lack the end of its body
	End      ReadingEnd
}

// ReadingEnd says how a [Reading] ended.
type ReadingEnd int

const (
	// Whole: after the last request nothing was left, or nothing counts.
	Whole ReadingEnd = iota
	// Cut: the stream ended inside a request.
	Cut
	// Refused: what came next has no valid reading.
	Refused
)

// ReadRequest is one request of a [Reading].
type ReadRequest struct {
	Method, Target string
	Host           string // of an absolute-form target, or else the Host field; "": there is none
	Body           string // as far as it came
	Whole          bool   // the body came to its end
	more           bool   // another request may follow
}

// ReadStrict reads all requests in raw. It shares no code with what it is held
// against, and it does not know which hosts there are, or which methods are served.
func ReadStrict(raw string) Reading {
	s := &strict{rest: raw}
	var r Reading
	for {
		for strings.HasPrefix(s.rest, "\r\n") { // RFC 9112, section 2.2
			s.rest = s.rest[2:]
		}
		if s.rest == "" {
			return r
		}
		req, end := s.request()
		if req != nil {
			r.Requests = append(r.Requests, *req)
		}
		if end != Whole || !req.more {
			r.End = end
			return r
		}
	}
}

// strict is what is left to be read.
type strict struct{ rest string }

// framing is what the fields of a request say of its body.
type framing struct {
	lengths, codings, hosts []string
	connection              string
}

// keeps reports whether the connection is for another request (RFC 9112, section 9.3).
func (f *framing) keeps(old bool) bool {
	options := strings.Split(f.connection, ",")
	for i, option := range options {
		options[i] = strings.Trim(option, " \t")
	}
	return !slices.Contains(options, "close") && (!old || slices.Contains(options, "keep-alive"))
}

// request reads one. It is nil where its header section is not valid or not all
// there; otherwise the end is that of its body.
func (s *strict) request() (*ReadRequest, ReadingEnd) {
	line, end := s.line()
	if end != Whole {
		return nil, end
	}
	words := strings.Split(line, " ")
	if len(words) != 3 || !token(words[0]) || words[1] == "" || !version(words[2]) {
		return nil, Refused
	}
	var f framing
	if end := s.fields(func(name, value string) {
		switch name {
		case "host":
			f.hosts = append(f.hosts, value)
		case "content-length":
			f.lengths = append(f.lengths, value)
		case "transfer-encoding":
			f.codings = append(f.codings, value)
		case "connection":
			f.connection += "," + strings.ToLower(value)
		}
	}); end != Whole {
		return nil, end
	}
	old := words[2] == "HTTP/1.0"
	hostless := old || words[0] == "CONNECT" // whose answer is a refusal
	if len(f.hosts) > 1 || len(f.hosts) == 0 && !hostless || old && len(f.codings) > 0 {
		return nil, Refused
	}
	req := &ReadRequest{Method: words[0], Target: words[1]}
	if len(f.hosts) > 0 {
		req.Host = f.hosts[0]
	}
	if _, rest, ok := strings.Cut(req.Target, "://"); ok && !strings.HasPrefix(req.Target, "/") {
		req.Host = rest[:strings.IndexAny(rest+"/", "/?")]
	}
	req.more = f.keeps(old)
	return s.body(req, f)
}

func (s *strict) body(req *ReadRequest, f framing) (*ReadRequest, ReadingEnd) {
	end := Whole
	switch {
	case len(f.codings) > 0:
		if len(f.lengths) > 0 || len(f.codings) > 1 || !strings.EqualFold(f.codings[0], "chunked") {
			return nil, Refused
		}
		req.Body, end = s.chunks()
	case len(f.lengths) > 1:
		return nil, Refused
	case len(f.lengths) == 1:
		n, ok := number(f.lengths[0], 10)
		if !ok {
			return nil, Refused
		}
		req.Body, end = s.take(n)
	}
	req.Whole = end == Whole
	return req, end
}

// fields reads up to the empty line.
func (s *strict) fields(each func(name, value string)) ReadingEnd {
	for {
		line, end := s.line()
		if end != Whole || line == "" {
			return end
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !token(name) {
			return Refused // a folded line, too
		}
		each(strings.ToLower(name), strings.Trim(value, " \t"))
	}
}

// line takes one line, which holds no control character but the tab.
func (s *strict) line() (string, ReadingEnd) {
	for i := range len(s.rest) {
		switch c := s.rest[i]; {
		case c == '\r' && i+1 == len(s.rest):
			return "", Cut
		case c == '\r' && s.rest[i+1] == '\n':
			line := s.rest[:i]
			s.rest = s.rest[i+2:]
			return line, Whole
		case c < ' ' && c != '\t', c == 0x7f:
			return "", Refused
		}
	}
	return "", Cut
}

func (s *strict) take(n uint64) (string, ReadingEnd) {
	if n > uint64(len(s.rest)) {
		return s.rest, Cut
	}
	taken := s.rest[:n]
	s.rest = s.rest[n:]
	return taken, Whole
}

func (s *strict) chunks() (body string, end ReadingEnd) {
	for {
		line, end := s.line()
		if end != Whole {
			return body, end
		}
		size, _, _ := strings.Cut(line, ";")
		n, ok := number(strings.TrimRight(size, " \t"), 16)
		if !ok {
			return body, Refused
		}
		if n == 0 {
			return body, s.fields(func(string, string) {})
		}
		data, end := s.take(n)
		body += data
		if end != Whole {
			return body, end
		}
		switch empty, end := s.line(); {
		case end != Whole:
			return body, end
		case empty != "":
			return body, Refused
		}
	}
}

// number reads digits and nothing else; of hexadecimal ones, 16.
func number(s string, base int) (uint64, bool) {
	if strings.ContainsAny(s, "+-_") || base == 16 && len(s) > 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 63)
	return n, err == nil
}

// version takes each of HTTP/1 (RFC 9110, section 6.2).
func version(s string) bool {
	minor, ok := strings.CutPrefix(s, "HTTP/1.")
	return ok && len(minor) == 1 && minor[0] >= '0' && minor[0] <= '9'
}

func token(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
	return s != "" && strings.Trim(s, letters) == ""
}
