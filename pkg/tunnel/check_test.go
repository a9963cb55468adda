package tunnel_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("good-token name=other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := auth.OpenTokens(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, server.Config{Auth: known})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, kind := range []tunnel.Transport{tunnel.Auto, tunnel.Raw, tunnel.WebSocket} {
		c := &tunnel.Client{Server: n.url(), Token: "good-token", Transport: kind}
		if err := c.Check(ctx); err != nil {
			t.Errorf("%s: a good token: %v", kind, err)
		}
		c.Token = "bad-token"
		if err := c.Check(ctx); !errors.Is(err, &protocol.Error{Code: protocol.Unauthorized}) {
			t.Errorf("%s: a bad token: %v", kind, err)
		}
	}
	c := &tunnel.Client{Server: "http://" + closedPort(t)}
	if err := c.Check(ctx); !errors.Is(err, tunnel.ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	c = &tunnel.Client{Server: n.url(), Transport: tunnel.PTTH}
	var config *tunnel.ConfigError
	if err := c.Check(ctx); !errors.As(err, &config) {
		t.Errorf("by PTTH: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		c    tunnel.Client
		good bool
	}{
		{tunnel.Client{}, true},
		{tunnel.Client{Server: "https://tunnel.example", Transport: tunnel.PTTH}, true},
		{tunnel.Client{Server: "tunnel.example"}, false},
		{tunnel.Client{Transport: "quic"}, false},
		{tunnel.Client{Token: "a\nb"}, false},
	} {
		err := tt.c.Validate()
		var config *tunnel.ConfigError
		if (err == nil) != tt.good || err != nil && !errors.As(err, &config) {
			t.Errorf("%q by %q: %v", tt.c.Server, tt.c.Transport, err)
		}
	}
}
