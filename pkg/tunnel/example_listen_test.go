package tunnel_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/revtun/tunnel/pkg/tunnel"
)

func greet(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello, you asked for %s of %s.\n", r.URL.Path, r.Host)
}

// A handler is published without a local port: the listener's connections come
// from the tunnel server.
func ExampleClient_Listen() {
	server, stop := exampleServer() // https://tunnel.example.com, so to speak
	defer stop()

	c := &tunnel.Client{Server: server, Token: "a-token-of-mine"}
	l, err := c.Listen(context.Background(), tunnel.Options{Name: "demo"})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	fmt.Println(l.URL())

	go http.Serve(l, http.HandlerFunc(greet))

	visit(server, l.URL()+"/path")
	// Output:
	// https://demo.tunnel.example.com
	// 200 OK
	// Hello, you asked for /path of demo.tunnel.example.com.
}
