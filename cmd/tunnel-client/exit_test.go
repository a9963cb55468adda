package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

func TestExitCodes(t *testing.T) {
	said := func(code protocol.Code) error {
		return fmt.Errorf("connect: %w", &protocol.Error{Code: code, Message: "no"})
	}
	for _, tt := range []struct {
		err  error
		want exitCode
	}{
		{errors.New("anything"), 1},
		{usageError{errors.New("bad")}, 2},
		{&tunnel.ConfigError{Err: errors.New("bad")}, 2},
		{&tunnel.ConfigError{Err: said(protocol.NameInvalid)}, 2},
		{said(protocol.NameInvalid), 2},
		{said(protocol.Unauthorized), 3},
		{said(protocol.TokenRevoked), 3},
		{said(protocol.Forbidden), 3},
		{lostError{said(protocol.Forbidden)}, 3},
		{said(protocol.DomainInvalid), 2},
		{said(protocol.DomainUnverified), 5},
		{said(protocol.NameTaken), 4},
		{fmt.Errorf("%w: refused", tunnel.ErrUnreachable), 5},
		{said(protocol.TooManySessions), 5},
		{said(protocol.LoginThrottled), 5},
		{said(protocol.Draining), 5},
		{said(protocol.WrongHost), 5},
		{said(protocol.VersionUnsupported), 1},
		{lostError{said(protocol.Unauthorized)}, 3},
		{lostError{said(protocol.TokenRevoked)}, 3},
		{lostError{said(protocol.NameTaken)}, 4},
		{lostError{said(protocol.Draining)}, 1},
		{lostError{said(protocol.ProtocolViolation)}, 1},
		{notReadyError{last: said(protocol.Unauthorized)}, 6},
		{commandError{exitNotFound, errors.New("no")}, 127},
		{signalError{os.Interrupt}, 130},
		{signalError{syscall.SIGTERM}, 143},
	} {
		if got := codeOf(tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	away := func(err error) error { return fmt.Errorf("%w: no: %w", tunnel.ErrUnreachable, err) }
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("disk full"), "disk full"},
		{ // what stays as it is
			away(&net.DNSError{Err: "no such host", Name: "a.test", IsNotFound: true}),
			"no: lookup a.test: no such host (server_unreachable)",
		},
		{away(tls.RecordHeaderError{Msg: "no TLS"}), "no: tls: no TLS (server_unreachable)"},
		{away(&tls.CertificateVerificationError{Err: errors.New("unknown")}), "no: tls: failed to verify certificate: unknown (server_unreachable)"},
		{away(&net.DNSError{Err: "timeout", Name: "a.test", IsTimeout: true}), "no: lookup a.test: timeout (server_unreachable): --retry keeps trying"},
		{&protocol.Error{Code: protocol.Draining, Message: "it ends"}, "it ends (draining): try again later, or use --retry"},
		{
			&protocol.Error{Code: protocol.NameTaken, Message: "it is taken", Hint: "choose another"},
			"it is taken (name_taken): choose another",
		},
		{ // a server must not command the user's terminal
			&protocol.Error{Code: "x", Message: "a\x1b[2J\nb"},
			`a\x1b[2J; b (x)`,
		},
		{
			fmt.Errorf("%w: %w", tunnel.ErrUnreachable, errors.Join(errors.New("raw: no"), errors.New("websocket: no"))),
			"raw: no; websocket: no (server_unreachable): --retry keeps trying",
		},
		{
			fmt.Errorf("%w: %w", tunnel.ErrUnreachable, tunnel.ErrNotTunnelServer),
			"no tunnel server answers there (server_unreachable): check --server, it is the URL of the tunnel server itself",
		},
		{signalError{os.Interrupt}, "ended at once by a second signal"},
	} {
		var b strings.Builder
		new(config).report(&b, tt.err)
		if got, want := b.String(), "tunnel-client: "+tt.want+"\n"; got != want {
			t.Errorf("%v is reported as %q, want %q", tt.err, got, want)
		}
	}
	for want, err := range map[string]error{ // of login, which has no --retry
		"no: refused (server_unreachable)":    away(errors.New("refused")),
		"it ends (draining): try again later": &protocol.Error{Code: protocol.Draining, Message: "it ends"},
	} {
		var b strings.Builder
		(&config{login: true}).report(&b, err)
		if got, want := b.String(), "tunnel-client: "+want+"\n"; got != want {
			t.Errorf("%v is reported by login as %q, want %q", err, got, want)
		}
	}
}
