package tunnel

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// R30 at the client: a server of a neighbouring version is understood, or the error
// says what is wrong.
func TestServerVersions(t *testing.T) {
	const newer = "\x00\x00\x00\x11{\"teleport\":true}"
	for name, test := range map[string]struct {
		welcome protocol.Welcome
		before  string // is written before the welcome
		want    string // of the error; "": there is none
	}{
		"this one":             {protocol.Welcome{Version: 1, Resume: "secret"}, "", ""},
		"says more":            {protocol.Welcome{Version: 1, Resume: "secret"}, newer, ""},
		"N+1, not offered":     {protocol.Welcome{Version: 2, Resume: "secret"}, "", "speaks version 2"},
		"N-1, not offered":     {protocol.Welcome{Resume: "secret"}, "", "speaks version 0"},
		"garbage":              {protocol.Welcome{Version: 1, Resume: "secret"}, "\x00\x00\x00\x04oops", "control message is not valid"},
		"another protocol":     {protocol.Welcome{Version: 1, Resume: "secret"}, "SSH-2.0-x\r\n", "over the limit"},
		"nothing that is told": {protocol.Welcome{Version: 1, Resume: "secret"}, "\x00\x00\x00\x02[]", "control message is not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, end := begin()
				defer end()
				f.hello = func(_ int, _ *protocol.Hello, m mux.Session, control mux.Stream) bool {
					io.WriteString(control, test.before)
					protocol.Write(control, &protocol.Message{Welcome: &test.welcome})
					got, err := protocol.Read(control)
					if err != nil || got.Bind == nil {
						return true
					}
					protocol.Write(control, &protocol.Message{Bound: &protocol.Bound{ID: got.Bind.ID, Name: "demo", URL: "http://demo.memory"}})
					return false
				}
				c, _ := f.client()
				l, err := c.Listen(t.Context(), Options{})
				if err == nil {
					defer l.Close()
				}
				if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
			})
		})
	}
}

// R30: a server that upgrades to another version says so, and the client with it.
func TestUpgradeOfAnotherVersion(t *testing.T) {
	const refusal = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: tunnel.v2, websocket\r\nTunnel-Error: upgrade_required\r\nContent-Length: 0\r\n\r\n"
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		f.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, refusal)
				conn.Close()
			}
			return true
		}
		c, _ := f.client()
		_, err := c.Listen(t.Context(), Options{})
		if err == nil || !errors.Is(err, &protocol.Error{Code: protocol.UpgradeRequired}) {
			t.Errorf("got %v", err)
		}
	})
}

// R30: a server that is older than private endpoints is told from one that lacks this
// one.
func TestConnectToOlderServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		c, _ := f.client()
		_, err := c.Connect(t.Context(), ConnectOptions{Retry: true})
		if !errors.Is(err, &protocol.Error{Code: protocol.KindUnsupported}) {
			t.Errorf("got %v", err)
		}
	})
}

// A server that resets the streams that are too many, rather than say so, is
// overloaded; the connector goes on.
func TestConnectorStreamIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		f.hello = func(_ int, _ *protocol.Hello, m mux.Session, control mux.Stream) bool {
			m.Limit(1)
			protocol.Write(control, &protocol.Message{Welcome: &protocol.Welcome{Version: 1, Resume: "secret", Connect: true}})
			return false
		}
		c, told := f.client()
		d, err := c.Connect(t.Context(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		expect(t, told, Ready)
		for range 3 {
			if _, err := d.Dial(t.Context(), "db"); !errors.Is(err, &protocol.Error{Code: protocol.Overloaded}) {
				t.Errorf("got %v", err)
			}
		}
		if d.Active() != 0 || d.Err() != nil {
			t.Errorf("%d connections, %v", d.Active(), d.Err())
		}
	})
}
