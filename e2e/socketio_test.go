//go:build unix

package e2e

import (
	"strings"
	"testing"
)

// TestSocketIO lets socket.io's client and server talk: they begin with long
// polls and go over to a WebSocket.
func TestSocketIO(t *testing.T) {
	project := installProject(t, "socketio")
	server := start(t, project.command("server.js"))
	port, err := server.out.find(func(line string) (string, bool) { return strings.CutPrefix(line, "listening ") })
	if err != nil {
		t.Fatalf("the server did not start: %v", err)
	}
	eachTransport(t, func(t *testing.T, transport string) {
		got := mustRun(t, project.command("client.js", expose(t, "127.0.0.1:"+port, transport)))
		want := `{"chosen":{"first":"polling","welcome":"polling","pushed":100,"last":"websocket","echo":["TEXT",3,2,1,"websocket"]},` +
			`"polls":{"first":"polling","welcome":"polling","pushed":100,"last":"polling","echo":["TEXT",3,2,1,"polling"]}}` + "\n"
		if got != want {
			t.Errorf("the client saw\n%swant\n%s", got, want)
		}
	})
}
