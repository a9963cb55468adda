package main

import (
	"context"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// The server never has a certificate of a name whose TLS ends at the client.
func TestNoCertificateForTLS(t *testing.T) {
	names := new(registry.Memory)
	bind := func(name string, kind protocol.Kind) registry.Release {
		release, err := names.Bind(t.Context(), &registry.Route{Name: name, Owner: "a", Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	bind("web", protocol.KindHTTP)
	bind("sealed", protocol.KindTLS)
	bind("away", protocol.KindTLS)(time.Hour)
	allowed := claimed(names, &server.Config{Domain: "example.com"})
	for host, want := range map[string]bool{"web.example.com": true, "sealed.example.com": false, "away.example.com": false, "nobody.example.com": false} {
		if err := allowed(context.Background(), host); (err == nil) != want {
			t.Errorf("%s: %v", host, err)
		}
	}
}
