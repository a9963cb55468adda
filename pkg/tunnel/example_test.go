package tunnel_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
)

// exampleServer runs a tunnel server for an example. It believes to be
// https://tunnel.example.com, behind a proxy.
func exampleServer() (address string, stop func()) {
	s, err := server.New(server.Config{
		Listen:    "127.0.0.1:0",
		Domain:    "tunnel.example.com",
		PublicURL: &url.URL{Scheme: "https", Host: "tunnel.example.com"},
		Auth:      auth.Anonymous{},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return "http://" + s.Addr().String(), func() {
		cancel()
		<-done
	}
}

// visit asks the server for what is public at link, and prints the answer.
func visit(server, link string) {
	_, addr, _ := strings.Cut(server, "://")
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	_, rest, _ := strings.Cut(link, "://")
	res, err := client.Get("http://" + rest) // the proxy would have ended TLS
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n%s", res.Status, body)
}
