package tunnel_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/revtun/tunnel/pkg/tunnel"
)

// The HTTP app that another client has claimed as the private endpoint "web", with
// the same token. It has no public name.
func ExampleClient_Connect() {
	c := &tunnel.Client{Server: "https://tunnel.example.com", Token: "…"}
	d, err := c.Connect(context.Background(), tunnel.ConnectOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			name, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return d.Dial(ctx, name)
		},
	}}
	res, err := client.Get("http://web/status")
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
}

// The DNS server that another client has claimed as the private endpoint "dns", of kind
// UDP.
func ExampleConnector_DialUDP() {
	c := &tunnel.Client{Server: "https://tunnel.example.com", Token: "…"}
	d, err := c.Connect(context.Background(), tunnel.ConnectOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialUDP(ctx, "dns")
	}}
	fmt.Println(r.LookupHost(context.Background(), "db.internal.example"))
}
