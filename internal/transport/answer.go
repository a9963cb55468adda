package transport

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// maxAnswer bounds the heads of an answer, and its body, in bytes each.
	maxAnswer = 64 << 10

	// maxText bounds what is shown of a text of the peer's, in bytes.
	maxText = 1 << 10

	// maxRetryAfter bounds a server's wish.
	maxRetryAfter = time.Hour
)

// Refused says that the tunnel server itself said no.
type Refused struct {
	Status     int             // of the HTTP response
	Err        *protocol.Error // never nil; fit for a terminal
	RetryAfter time.Duration   // 0: the server names no time; one hour at most
}

func (e *Refused) Error() string { return "the server refused: " + e.Err.Error() }

// Unwrap returns Err.
func (e *Refused) Unwrap() error { return e.Err }

// UpgradeError says that the server's address was reached, but not a tunnel
// server: something else answered, or the connection ended or stayed silent.
// Where a middlebox is to blame, the other [Kind] may get through.
type UpgradeError struct {
	Server string // host:port
	Status int    // of the HTTP response; 0: there was none
	Err    error  // the cause and the way out; ctx's error where ctx ended
}

func (e *UpgradeError) Error() string { return "upgrade at " + e.Server + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *UpgradeError) Unwrap() error { return e.Err }

// exchange is the request for one upgrade and its answer, on a connection of
// its own. It is an http.RoundTripper that knows no answer but 101.
type exchange struct {
	server string   // host:port, for errors
	conn   net.Conn // after the 101 it has what was read ahead, too
	body   socket   // of the 101
	err    error    // what RoundTrip returned

	// refused reads the refusal of a server that is not ours; nil, also of its result:
	// only a tunnel server refuses.
	refused func(resp *http.Response, body []byte) *protocol.Error
}

// RoundTrip returns an error for each answer but the 101 that was asked for. It
// is a [*Refused] or an [*UpgradeError]. The connection is not closed.
func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	var resp *http.Response
	resp, x.err = x.roundTrip(req)
	return resp, x.err
}

func (x *exchange) roundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if err := req.Write(x.conn); err != nil {
		return nil, x.broken(0, interrupted(ctx, err))
	}
	resp, br, err := readAnswer(x.conn, req)
	if err != nil {
		return nil, x.broken(0, interrupted(ctx, err))
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, x.refusal(resp)
	}
	want := req.Header.Get("Upgrade")
	if !hasToken(resp.Header, "Connection", "upgrade") || !strings.EqualFold(resp.Header.Get("Upgrade"), want) {
		return nil, x.broken(resp.StatusCode, fmt.Errorf("it switched to another protocol than %s: this is not a tunnel server, check --server", want))
	}
	x.conn = withRest(x.conn, br)
	x.body.Conn = x.conn
	resp.Body = &x.body
	return resp, nil
}

func (x *exchange) broken(status int, err error) error {
	return &UpgradeError{Server: x.server, Status: status, Err: err}
}

// interrupted returns ctx's error where that is why err happened: a ctx that
// ends closes the connection.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer so far: %w", ctx.Err())
	}
	return err
}

// socket is the body of a 101. It reads as empty until it is open, because
// package websocket drains what it does not like, and the peer need not end it.
type socket struct {
	gatherer
	open bool
}

func (s *socket) Read(p []byte) (int, error) {
	if !s.open {
		return 0, io.EOF
	}
	return s.Conn.Read(p)
}

// readAnswer reads the head of the final response to req from r (RFC 9110,
// section 15.2: interim ones are skipped, but for 101). Reading the response's
// body from the reader that it returns is bounded, too; what that reader has
// buffered of a new protocol is whole.
func readAnswer(r io.Reader, req *http.Request) (*http.Response, *bufio.Reader, error) {
	limited := &io.LimitedReader{R: r, N: maxAnswer}
	br := bufio.NewReader(limited)
	if _, err := br.Peek(1); err != nil {
		const cause = "the connection was closed without an answer (%w): something on the way does not let the upgrade pass, or this is not a tunnel server"
		if req.URL.Scheme == "http" {
			return nil, nil, fmt.Errorf(cause+"; where its port is one for TLS, use https:// in --server", err)
		}
		return nil, nil, fmt.Errorf(cause, err)
	}
	begin, _ := br.Peek(min(br.Buffered(), 24))
	begin = append([]byte(nil), begin...)
	for {
		resp, err := http.ReadResponse(br, req)
		if err != nil {
			return nil, nil, badAnswer(err, begin, limited.N == 0)
		}
		if resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			limited.N = maxAnswer
			return resp, br, nil
		}
	}
}

// badAnswer names the cause why an answer that starts with begin could not be
// read. The error of net/http is not shown: it holds as much of the answer as
// the peer likes.
func badAnswer(err error, begin []byte, full bool) error {
	const tlsAlert = 0x15 // RFC 8446, section 5.1
	switch {
	case full:
		return fmt.Errorf("the head of the answer is over %d bytes", maxAnswer)
	case len(begin) > 2 && begin[0] == tlsAlert && begin[1] == 3:
		return errors.New("it speaks TLS: use https:// in --server")
	case !strings.HasPrefix("HTTP/", string(begin[:min(len(begin), 5)])):
		return fmt.Errorf("the answer is not HTTP, it begins with %q: check the port of --server", begin)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed in the middle of the answer")
	}
	var network net.Error
	if errors.As(err, &network) {
		return err
	}
	return errors.New("the answer is not well-formed HTTP/1.1")
}

// refusal makes the error for an answer that is not 101.
func (x *exchange) refusal(resp *http.Response) error {
	code := resp.Header.Get(protocol.HeaderError)
	if !validCode(code) {
		if x.refused != nil {
			body, _ := io.ReadAll(resp.Body) // as much as there is
			if e := x.refused(resp, body); e != nil {
				return &Refused{Status: resp.StatusCode, Err: e, RetryAfter: retryAfterOf(resp.Header)}
			}
		}
		return x.broken(resp.StatusCode, notATunnel(resp))
	}
	e := &Refused{
		Status:     resp.StatusCode,
		Err:        &protocol.Error{Code: protocol.Code(code), Message: "it answered " + statusText(resp.StatusCode)},
		RetryAfter: retryAfterOf(resp.Header),
	}
	var body protocol.Refusal
	err := json.NewDecoder(resp.Body).Decode(&body)
	if err == nil && body.Error != nil && body.Error.Message != "" {
		e.Err.Message = printable(body.Error.Message)
		e.Err.Hint = printable(body.Error.Hint)
	}
	return e
}

// notATunnel says what to do about a response that no tunnel server gives.
func notATunnel(resp *http.Response) error {
	status := statusText(resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if to, err := url.Parse(resp.Header.Get("Location")); err == nil && to.Scheme != "" && to.Host != "" {
			return fmt.Errorf("it answered %s to %q: give the address that it redirects to as --server", status, printable(to.Scheme+"://"+to.Host))
		}
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("it answered %s, and that does not come from a tunnel server: what stands in front of it does not reach it", status)
	}
	return fmt.Errorf("it answered %s, and that does not come from a tunnel server: check --server; behind a proxy, check that it passes upgrades on", status)
}

func statusText(code int) string {
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
}

func retryAfterOf(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryAfter)
}

func validCode(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// printable makes a text of the peer's fit for a terminal and a log line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}
