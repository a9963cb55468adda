// Command yamux-client attaches to a tunnel server without a line of this
// project: with hashicorp/yamux, a WebSocket library, and what is written here.
// Read it from top to bottom, and take it along; package protocol has the rest.
//
//	TUNNEL_TOKEN=… yamux-client -server https://tunnel.example.com -name demo
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/hashicorp/yamux"
	"nhooyr.io/websocket"
)

//lint:file-ignore SA1019 this is coder/websocket by its old name, which many still import

func main() {
	server := flag.String("server", "http://127.0.0.1:8080", "`URL` of the tunnel server")
	name := flag.String("name", "", "public `name`; the server picks one if there is none")
	flag.Parse()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from behind NAT: %s %s\n", r.Method, r.RequestURI)
	})
	log.Fatal(serve(context.Background(), *server, os.Getenv("TUNNEL_TOKEN"), *name, app, os.Stdout))
}

// serve publishes app until the session ends, and returns why it did.
func serve(ctx context.Context, server, token, name string, app http.Handler, out io.Writer) error {
	// The upgrade: a WebSocket at a path that names the session, a random id. The
	// token, if any, is in the usual header. A refusal is plain HTTP with JSON.
	ws, res, err := websocket.Dial(ctx, server+"/.well-known/tunnel/"+rand.Text(), &websocket.DialOptions{
		HTTPHeader:   http.Header{"Authorization": {"Bearer " + token}},
		Subprotocols: []string{"tunnel.v1"},
	})
	if err != nil && res != nil {
		cause, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s", res.Status, cause)
	} else if err != nil {
		return err
	}
	// What follows is yamux in binary messages. Who connected is the yamux client.
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard // it tells of each stream that a visitor left
	session, err := yamux.Client(websocket.NetConn(ctx, ws, websocket.MessageBinary), config)
	if err != nil {
		return err
	}
	defer session.Close()

	// The one stream that a client opens is the control stream. It says hello and
	// claims a name. Messages and fields that it does not know it ignores.
	control, err := session.Open()
	if err != nil {
		return err
	}
	send(control, `{"hello":{"versions":[1],"agent":"yamux-client"}}`)
	quoted, _ := json.Marshal(name)
	send(control, fmt.Sprintf(`{"bind":{"id":1,"kind":"http","name":%s}}`, quoted))
	ended := make(chan error, 1)
	go func() {
		ended <- listen(control, out)
		session.Close()
	}()

	// From here on the roles are reversed: each stream that the server opens is an
	// HTTP/1.1 connection on which it asks and we answer. The session is a
	// net.Listener for them.
	err = http.Serve(session, app)
	return fmt.Errorf("the session has ended: %w (%v)", <-ended, err)
}

// send writes one message: its length in four bytes, then JSON. It fails where
// the session has ended, and then listen says why.
func send(control io.Writer, message string) {
	control.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
}

// said is what one of the server's messages has in it.
type said struct {
	URL, Reason string
	Error       *struct{ Code, Message, Hint string }
}

// listen hears what the server says until the session ends, and returns why.
func listen(control io.Reader, out io.Writer) error {
	for {
		var size uint32
		if err := binary.Read(control, binary.BigEndian, &size); err != nil {
			return err
		}
		body := make([]byte, min(size, 64<<10)) // the largest message
		if _, err := io.ReadFull(control, body); err != nil {
			return err
		}
		var m struct{ Bound, Drain, Bye *said }
		if err := json.Unmarshal(body, &m); err != nil {
			return err
		}
		switch {
		case m.Bound != nil && m.Bound.Error != nil: // the name is not ours
			return fmt.Errorf("%+v", *m.Bound.Error)
		case m.Bound != nil:
			fmt.Fprintln(out, m.Bound.URL)
		case m.Drain != nil: // the server will go; what is under way may finish
			fmt.Fprintln(out, "the server is going away:", m.Drain.Reason)
		case m.Bye != nil && m.Bye.Error != nil: // it ends the session
			return fmt.Errorf("%+v", *m.Bye.Error)
		}
	}
}
