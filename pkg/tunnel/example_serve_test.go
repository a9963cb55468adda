package tunnel_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/revtun/tunnel/pkg/tunnel"
)

func remember(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, "I was called.")
}

// Serve stays until its context ends, and tells what happens to the connection
// meanwhile. Then it lets the requests under way finish.
func ExampleClient_Serve() {
	server, stopServer := exampleServer() // https://tunnel.example.com, so to speak
	defer stopServer()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	c := &tunnel.Client{Server: server, Token: "a-token-of-mine"}
	c.Events = func(e tunnel.Event) {
		fmt.Println(e.Type, e.URL)
		if e.Type == tunnel.Ready {
			go func() {
				visit(server, e.URL)
				stop() // as Ctrl-C would
			}()
		}
	}
	err := c.Serve(ctx, tunnel.Options{Name: "demo"}, http.HandlerFunc(remember))
	if err != nil {
		log.Fatal(err) // such as a name that is taken, or a token that was revoked
	}
	// Output:
	// ready https://demo.tunnel.example.com
	// 200 OK
	// I was called.
	// draining https://demo.tunnel.example.com
	// closed https://demo.tunnel.example.com
}
