package tunnel_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// S14: the token is in no log, event or error, on neither side, whoever answers.
func TestTokenIsNeverShown(t *testing.T) {
	const token = "sekret-0123456789"
	seen := &rig.Buffer{}
	log := slog.New(slog.NewTextHandler(seen, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g := &guard{changed: make(chan struct{})}
	n := start(t, server.Config{Auth: g, Log: log, Hold: time.Minute})
	r := newRelay(t, n.addr)
	told := newEvents()
	client := func(url string) *tunnel.Client {
		return &tunnel.Client{Server: url, Token: token, Log: log, Events: func(e tunnel.Event) {
			fmt.Fprintf(seen, "event %+v\n", e)
			told.tell(e)
		}}
	}
	l := listen(t, client(r.url()), tunnel.Options{Name: "demo"}, hello)
	told.next(t, tunnel.Ready)
	n.get(t, "demo", "/")
	r.judge(func(_ []byte, c net.Conn) verdict { return answering("502 Bad Gateway")(c) })
	r.cut()
	told.next(t, tunnel.Disconnected)
	r.judge(nil)
	told.next(t, tunnel.Reconnected)
	g.revoked.Store(true)
	g.changed <- struct{}{}
	told.next(t, tunnel.Disconnected)
	told.next(t, tunnel.Closed)
	_, err := l.Accept()
	fmt.Fprintln(seen, err)

	echo := newRelay(t, "nowhere")
	echo.judge(func(head []byte, c net.Conn) verdict { c.Write(head); return refuse })
	for _, c := range []*tunnel.Client{
		client(r.url()), client(echo.url()), client("http://" + closedPort(t)), client("http://" + token + "@127.0.0.1"),
		{Server: r.url(), Token: token + "\n", Log: log},
	} {
		err := c.Serve(t.Context(), tunnel.Options{}, http.NotFoundHandler())
		if err == nil {
			t.Error("connected")
		}
		fmt.Fprintf(seen, "%v %+v\n", err, err)
	}
	if all := seen.String(); strings.Contains(all, "sekret") || len(all) < 1000 {
		t.Errorf("the token was shown, or nothing was: %s", all)
	}
}
