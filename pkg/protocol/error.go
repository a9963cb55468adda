package protocol

import (
	"fmt"
	"net/http"
)

// Code is a stable name for something that went wrong. Codes are part of the
// interface: docs/errors.md lists each with its cause and the way out.
type Code string

// Codes that visitors see, in [HeaderError].
const (
	BadRequest      Code = "bad_request"
	NameUnknown     Code = "name_unknown"
	WrongHost       Code = "wrong_host"
	URITooLong      Code = "uri_too_long"
	HeadersTooLarge Code = "headers_too_large"
	Overloaded      Code = "overloaded"
	ClientOffline   Code = "client_offline"
	SessionLost     Code = "session_lost"
	AppRefused      Code = "app_refused"
	AppBadResponse  Code = "app_bad_response"
	AppTimeout      Code = "app_timeout"
	AppStarting     Code = "app_starting"
	NoUpgrade       Code = "no_upgrade"
	VisitorRefused  Code = "visitor_refused"
	LoginRequired   Code = "login_required"
	LinkRequired    Code = "link_required"
	LinkExpired     Code = "link_expired"
	Ended           Code = "ended" // clients see it, too
)

// Codes that clients see, in a [Refusal] or on the control stream.
const (
	Unauthorized       Code = "unauthorized"
	LoginThrottled     Code = "login_throttled"
	AuthUnavailable    Code = "auth_unavailable"
	UpgradeRequired    Code = "upgrade_required"
	ALPNUnsupported    Code = "alpn_unsupported"
	NotFound           Code = "not_found"
	NameTaken          Code = "name_taken"
	NameInvalid        Code = "name_invalid"
	DomainInvalid      Code = "domain_invalid"
	DomainUnverified   Code = "domain_unverified"
	PortUnavailable    Code = "port_unavailable"
	Forbidden          Code = "forbidden"
	KindUnsupported    Code = "kind_unsupported"
	WrongKind          Code = "wrong_kind"
	TooManySessions    Code = "too_many_sessions"
	TooManyNames       Code = "too_many_names"
	Draining           Code = "draining"
	SessionTaken       Code = "session_taken"
	SessionFenced      Code = "session_fenced"
	TokenRevoked       Code = "token_revoked"
	VersionUnsupported Code = "version_unsupported"
	ProtocolViolation  Code = "protocol_violation"
	ShareUnsupported   Code = "share_unsupported"
)

// Error is an error with a stable code, its cause and the way out.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`        // the cause, one sentence
	Hint    string `json:"hint,omitempty"` // what to do about it, one sentence
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("%s (%s)", e.Message, e.Code)
	}
	return fmt.Sprintf("%s (%s): %s", e.Message, e.Code, e.Hint)
}

// Is makes errors.Is(err, &Error{Code: c}) true for every error with code c.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Refusal is the JSON body of a refused upgrade: {"error":{"code":…}}.
type Refusal struct {
	Error *Error `json:"error"`
}

// Status returns the HTTP status (RFC 9110, section 15) that goes with c, and
// 500 for a code that it does not know.
func (c Code) Status() int {
	switch c {
	case BadRequest, NameInvalid, DomainInvalid, VersionUnsupported, ProtocolViolation, KindUnsupported, WrongKind, ShareUnsupported:
		return http.StatusBadRequest
	case Unauthorized, TokenRevoked, LoginRequired:
		return http.StatusUnauthorized
	case NameUnknown, NotFound:
		return http.StatusNotFound
	case Forbidden, VisitorRefused, LinkRequired, LinkExpired:
		return http.StatusForbidden
	case NameTaken, PortUnavailable, SessionTaken, SessionFenced:
		return http.StatusConflict
	case Ended:
		return http.StatusGone
	case URITooLong:
		return http.StatusRequestURITooLong
	case WrongHost:
		return http.StatusMisdirectedRequest
	case ALPNUnsupported:
		return http.StatusNotAcceptable
	case UpgradeRequired:
		return http.StatusUpgradeRequired
	case TooManyNames, LoginThrottled:
		return http.StatusTooManyRequests
	case HeadersTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge
	case SessionLost, AppRefused, AppBadResponse:
		return http.StatusBadGateway
	case NoUpgrade:
		return http.StatusNotImplemented
	case AppTimeout:
		return http.StatusGatewayTimeout
	case ClientOffline, AppStarting, Overloaded, Draining, TooManySessions, AuthUnavailable, DomainUnverified:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
