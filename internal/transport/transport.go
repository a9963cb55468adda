// Package transport has every way to upgrade a connection between client and
// server: raw.go, websocket.go and ptth.go, each with both of its ends. What comes out is a
// net.Conn that carries bytes both ways; what they mean is the affair of
// others.
//
// On the server, [Accept] upgrades a request and [Refuse] says no. On the
// client, [Dialer.Dial] connects, through a forward proxy where there is one,
// and asks for the upgrade. Package protocol tells what both say.
package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Kind is a way to upgrade.
type Kind string

const (
	// Raw is "Upgrade: tunnel.v1": the connection as it is. It is the fast one.
	Raw Kind = "raw"
	// WebSocket is RFC 6455 with binary messages: it passes every middlebox.
	WebSocket Kind = "websocket"
)

const (
	upgradeWebSocket = "websocket" // RFC 6455, section 11.2

	// spoken lists what Accept takes, for refusals.
	spoken = protocol.Upgrade + ", " + upgradeWebSocket

	// retryAfter goes with refusals that may pass.
	retryAfter = 5 * time.Second

	// switchTimeout bounds the writing of the 101.
	switchTimeout = 10 * time.Second

	// restTime is how long who was refused may go on sending.
	restTime = time.Second
)

// Accept upgrades the connection of r on the server's side. Who asks and for
// which session has been checked before.
//
// Where the error is a [*protocol.Error] nothing was written and r is to be
// answered with [Refuse], for which w's header lists what is spoken where the
// code is [protocol.UpgradeRequired] (RFC 9110, section 15.5.22). With any other
// error the connection was lost on the way and is closed: there is nobody to
// answer.
//
// r.Context ends when the handler returns, and is not the connection's.
func Accept(w http.ResponseWriter, r *http.Request) (net.Conn, Kind, error) {
	conn, kind, err := accept(w, r)
	if errors.Is(err, &protocol.Error{Code: protocol.UpgradeRequired}) && r.ProtoMajor == 1 {
		// HTTP/2 ends a stream over these (RFC 9113, section 8.2.2).
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", spoken)
	}
	return conn, kind, err
}

func accept(w http.ResponseWriter, r *http.Request) (net.Conn, Kind, error) {
	if err := checkUpgrade(r, protocol.Upgrade, upgradeWebSocket); err != nil {
		return nil, "", err
	}
	kind, take := WebSocket, acceptWebSocket
	if hasToken(r.Header, "Upgrade", protocol.Upgrade) {
		kind, take = Raw, acceptRaw
	}
	conn, err := take(w, r)
	if err != nil {
		return nil, kind, err
	}
	LimitUnsent(conn)
	return conn, kind, nil
}

// checkUpgrade checks what holds for each way to upgrade, to one of tokens.
func checkUpgrade(r *http.Request, tokens ...string) error {
	asks := func(token string) bool { return hasToken(r.Header, "Upgrade", token) }
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		// RFC 9110, section 7.8: an Upgrade in HTTP/1.0 is to be ignored. This is
		// what comes from nginx without proxy_http_version.
		return &protocol.Error{
			Code:    protocol.UpgradeRequired,
			Message: "a tunnel begins with an upgrade of HTTP/1.1, and this request came as " + r.Proto,
			Hint:    "have the proxy in front of the server speak HTTP/1.1 to it and pass Upgrade and Connection on",
		}
	case !hasToken(r.Header, "Connection", "upgrade"), !slices.ContainsFunc(tokens, asks):
		return &protocol.Error{
			Code:    protocol.UpgradeRequired,
			Message: "this request asks for no upgrade that is spoken here",
			Hint:    "send Connection: Upgrade, and Upgrade with one of " + strings.Join(tokens, ", "),
		}
	case r.Method != http.MethodGet:
		return violation("an upgrade is a GET")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		// Its body would be taken for the new protocol's bytes.
		return violation("an upgrade has no body")
	case len(r.Header["Origin"]) > 0:
		// A page must not open tunnels with what its visitor's network allows.
		return violation("a browser cannot open a tunnel")
	}
	return nil
}

func violation(message string) error {
	return &protocol.Error{Code: protocol.ProtocolViolation, Message: message}
}

// hasToken says whether the comma-separated lists of name hold token, in
// whatever case.
func hasToken(h http.Header, name, token string) bool {
	for _, list := range h[name] {
		for one := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.Trim(one, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// takeOver ends HTTP on the connection behind w with a 101 that carries head.
// Errors are as for [Accept].
func takeOver(w http.ResponseWriter, head http.Header) (net.Conn, error) {
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, &protocol.Error{
			Code:    protocol.UpgradeRequired,
			Message: "this connection cannot be upgraded: " + err.Error(),
		}
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = head.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	if err := writeWithin(conn, b.Bytes(), switchTimeout); err != nil {
		conn.Close()
		return nil, fmt.Errorf("answer the upgrade: %w", err)
	}
	return withRest(conn, brw.Reader), nil
}

// writeWithin writes p and leaves conn without deadlines.
func writeWithin(conn net.Conn, p []byte, limit time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := conn.Write(p); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// Refuse answers an upgrade with e as a plain HTTP response: the status of
// its code, [protocol.HeaderError], and a [protocol.Refusal] as JSON. A 401 asks
// for a bearer token (RFC 6750), a 429 or 503 has
// Retry-After, which is 5 s unless w has one already. The connection is
// closed after it, whatever is left of the request; one of HTTP/2 takes no
// further request.
func Refuse(w http.ResponseWriter, e *protocol.Error) {
	body, err := json.Marshal(protocol.Refusal{Error: e})
	if err != nil {
		// Strings alone always encode.
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	status := e.Code.Status()
	h := w.Header()
	switch status {
	case http.StatusUnauthorized:
		h.Add("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		}
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(protocol.HeaderError, string(e.Code))
	// Or net/http would wait for the request's body first. It looks at the first
	// Connection only.
	h["Connection"] = append([]string{"close"}, h["Connection"]...)
	w.WriteHeader(status)
	_, _ = w.Write(body) // who has gone needs no answer
	// The rest of a body must not keep the connection. The error is of a
	// ResponseWriter that is not net/http's.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTime))
}
