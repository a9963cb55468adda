package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// exitCode is how the process ends. As an error it says that the user has been
// told why.
type exitCode int

const (
	exitRuntime     exitCode = 1
	exitUsage       exitCode = 2
	exitAuth        exitCode = 3
	exitTaken       exitCode = 4
	exitUnreachable exitCode = 5
	exitNotReady    exitCode = 6

	// Of exec's COMMAND, as shells have them.
	exitNotExecutable exitCode = 126
	exitNotFound      exitCode = 127
	exitSignal        exitCode = 128 // and the signal's number, as shells have it
)

func (c exitCode) Error() string { return "exit code " + strconv.Itoa(int(c)) }

// codeUnreachable is for what goes wrong before there is a server to say what.
const codeUnreachable protocol.Code = "server_unreachable"

// usageError is one of flags and configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// lostError says that a session ended for good after it had begun.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// signalError is the cause of an end that a signal asked for.
type signalError struct{ signal os.Signal }

func (e signalError) Error() string { return "signal: " + e.signal.String() }

// codeOf returns the exit code for err.
func codeOf(err error) exitCode {
	var usage usageError
	var config *tunnel.ConfigError
	var said *protocol.Error
	var signaled signalError
	var command commandError
	var late notReadyError
	var token *tunnel.TokenError
	switch {
	case errors.As(err, &command):
		return command.code
	case errors.As(err, &late):
		return exitNotReady
	case errors.As(err, &usage), errors.As(err, &config):
		return exitUsage
	case errors.As(err, &signaled):
		if n, ok := signaled.signal.(syscall.Signal); ok {
			return exitSignal + exitCode(n)
		}
	case errors.As(err, &said):
		var lost lostError
		return codeOfRefusal(said.Code, errors.As(err, &lost))
	case errors.As(err, &token):
		return exitAuth
	case errors.Is(err, tunnel.ErrUnreachable):
		return exitUnreachable
	}
	return exitRuntime
}

func codeOfRefusal(code protocol.Code, lost bool) exitCode {
	switch code {
	case protocol.Unauthorized, protocol.TokenRevoked, protocol.Forbidden:
		return exitAuth
	case protocol.NameTaken:
		return exitTaken
	}
	if !lost && (unavailable(code) || elsewhere(code)) {
		return exitUnreachable
	}
	if !lost && (code == protocol.NameInvalid || code == protocol.DomainInvalid) {
		return exitUsage
	}
	return exitRuntime
}

// unavailable reports whether the server may say yes another time.
func unavailable(code protocol.Code) bool {
	switch code {
	case protocol.Draining, protocol.TooManySessions, protocol.Overloaded, protocol.AuthUnavailable, protocol.LoginThrottled, protocol.DomainUnverified:
		return true
	}
	return false
}

// elsewhere reports whether what answered is not where clients connect: a public
// name, another host, or a proxy that takes the upgrade away.
func elsewhere(code protocol.Code) bool {
	switch code {
	case protocol.WrongHost, protocol.NameUnknown, protocol.ClientOffline, protocol.UpgradeRequired, protocol.NotFound:
		return true
	}
	return false
}

// passes reports whether err, of a server that cannot be reached, may pass by itself. A name
// that there is not, a server without TLS and a certificate that is not trusted stay so.
func passes(err error) bool {
	name, isName := errors.AsType[*net.DNSError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return !(isName && name.IsNotFound) && !plain && !untrusted
}

const checkServer = "check --server, it is the URL of the tunnel server itself"

// explain returns err's code, or "", its cause and the way out, or "".
func (c *config) explain(err error) (code protocol.Code, cause, hint string) {
	var said *protocol.Error
	var late notReadyError
	switch {
	case errors.As(err, &late):
		code, cause, hint = protocol.AppStarting, err.Error(), "look at what it printed, check --target and --wait, or raise --wait-timeout"
	case errors.As(err, &said):
		code, cause, hint = said.Code, said.Message, said.Hint
		switch {
		case code == protocol.Unauthorized && c.login:
			hint = "check what you entered; nothing is kept"
		case code == protocol.Unauthorized && !c.hasToken:
			cause, hint = "the server lets nobody in without a token", "pass one with --token-file FILE or TUNNEL_TOKEN, or keep one by tunnel-client login"
		case code == protocol.Unauthorized && c.client.TokenSource == nil:
			hint = "check --token-file or TUNNEL_TOKEN, or log in again"
		case hint == "" && elsewhere(code):
			hint = checkServer
		case hint == "" && unavailable(code) && c.login:
			hint = "try again later"
		case hint == "" && unavailable(code):
			hint = "try again later, or use --retry"
		}
	case errors.Is(err, tunnel.ErrUnreachable):
		code = codeUnreachable
		if !c.login && passes(err) {
			hint = "--retry keeps trying"
		}
		if errors.Is(err, tunnel.ErrNotTunnelServer) {
			hint = checkServer
		}
		cause = strings.TrimPrefix(err.Error(), tunnel.ErrUnreachable.Error()+": ")
	default:
		cause = err.Error()
		if _, ok := errors.AsType[*tunnel.TokenError](err); ok {
			hint = "try the command by itself; --retry keeps trying"
		}
		if _, ok := errors.AsType[signalError](err); ok {
			cause = "ended at once by a second signal"
		}
	}
	return code, strings.ReplaceAll(cause, "\n", "; "), hint
}

// report tells the user why the process ends, in the form of the log where a
// program reads it.
func (c *config) report(w io.Writer, err error) {
	code, cause, hint := c.explain(err)
	if c.logFormat == "json" {
		attrs := []any{"err", cause}
		if code != "" {
			attrs = append(attrs, "code", string(code))
		}
		if hint != "" {
			attrs = append(attrs, "hint", hint)
		}
		c.log.Error("ended", attrs...)
		return
	}
	line := cause
	if code != "" {
		line += " (" + string(code) + ")"
	}
	if hint != "" {
		line += ": " + hint
	}
	io.WriteString(w, "tunnel-client: "+printable(line)+"\n")
}
