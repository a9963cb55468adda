package server_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// What a session writes goes through TLS: package mux writes to sockets itself where
// it gets one, and the visitor's side of TLS has one below.
func TestRawSessionOverTLS(t *testing.T) {
	cert := rig.NewCertificate(t, "example.com")
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", Domain: "example.com", Auth: auth.Anonymous{}, TLS: &server.TLS{Listen: "127.0.0.1:0", GetCertificate: cert.Get}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	at := s.TLSAddr().String()
	c := &tunnel.Client{Server: "https://" + at, Transport: tunnel.Raw, TLS: &tls.Config{RootCAs: cert.Roots}}
	l, err := c.Listen(t.Context(), tunnel.Options{Name: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		}))
	}()
	defer func() { l.Close(); <-served }()
	visitor := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.Roots}}}
	defer visitor.CloseIdleConnections()
	body := make([]byte, 1<<20)
	for range 3 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+at, bytes.NewReader(body))
		req.Host = "demo.example.com"
		res, err := visitor.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || len(got) != len(body) || res.StatusCode != http.StatusOK {
			t.Fatalf("%d bytes, %s, %v", len(got), res.Status, err)
		}
	}
}
