package main

import (
	"errors"
	"fmt"
	"os"
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
		{said(protocol.NameTaken), 4},
		{fmt.Errorf("%w: refused", tunnel.ErrUnreachable), 5},
		{said(protocol.TooManySessions), 5},
		{said(protocol.Draining), 5},
		{said(protocol.WrongHost), 5},
		{said(protocol.VersionUnsupported), 1},
		{lostError{said(protocol.Unauthorized)}, 3},
		{lostError{said(protocol.TokenRevoked)}, 3},
		{lostError{said(protocol.NameTaken)}, 4},
		{lostError{said(protocol.Draining)}, 1},
		{lostError{said(protocol.ProtocolViolation)}, 1},
		{signalError{os.Interrupt}, 130},
		{signalError{syscall.SIGTERM}, 143},
	} {
		if got := codeOf(tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}
