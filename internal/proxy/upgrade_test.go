package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig/poll"
)

const (
	askUpgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: x/1\r\n\r\n"
	switched   = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x/1\r\n\r\n"
)

// switching is an app that agrees to an upgrade and goes on with then.
func switching(t testing.TB, then func(*appConn)) *rawApp {
	return newApp(t, func(c *appConn) {
		m, more := c.request()
		if !more {
			return
		}
		if !slices.Contains(m.fields, "Upgrade: x/1") {
			t.Errorf("app saw no upgrade: %v", m)
		}
		c.send(switched)
		then(c)
	})
}

func TestUpgrade(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := switching(t, func(c *appConn) {
			io.Copy(c, c.r)
		})
		p := way(t, app.addr())
		v := visit(t, p.addr, askUpgrade)
		v.next(switched)
		for _, s := range []string{"a", "bc", strings.Repeat("d", 100_000)} {
			go v.send(s)
			v.next(s)
		}
		v.CloseWrite()
		if b, err := io.ReadAll(v.r); len(b) > 0 || err != nil {
			t.Errorf("at the end %q, %v", b, err)
		}
		if err := within(t, "end of the exchange", p.tried); err != nil {
			t.Error(err)
		}
		if n := len(p.edge.idle) + len(p.local.idle); n > 0 {
			t.Errorf("%d connections were kept", n)
		}
	})
}

// Nothing is lost of what comes right behind the request, or the 101.
func TestUpgradeEarlyBytes(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := newApp(t, func(c *appConn) {
			if _, more := c.request(); more {
				c.send(switched + "early from the app")
				io.Copy(c, c.r)
			}
		})
		early := strings.Repeat("early from the visitor", 1000)
		v := visit(t, way(t, app.addr()).addr, "")
		go func() {
			io.WriteString(v, askUpgrade+early)
			v.CloseWrite()
		}()
		v.next(switched + "early from the app" + early)
		if b, err := io.ReadAll(v.r); len(b) > 0 || err != nil {
			t.Errorf("at the end %q, %v", b, err)
		}
	})
}

// After one side has ended, the other goes on (R16).
func TestUpgradeHalfClosed(t *testing.T) {
	data := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{2}).Read(data)
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		t.Run("visitor ends, downloads", func(t *testing.T) {
			app := switching(t, func(c *appConn) {
				if b, err := io.ReadAll(c.r); string(b) != "question" || err != nil {
					t.Errorf("app read %q, %v", b, err)
				}
				c.Write(data)
			})
			v := visit(t, way(t, app.addr()).addr, askUpgrade)
			v.next(switched)
			v.send("question")
			v.CloseWrite()
			if b, err := io.ReadAll(v.r); !bytes.Equal(b, data) || err != nil {
				t.Errorf("got %d bytes, %v", len(b), err)
			}
		})
		t.Run("app ends, visitor uploads", func(t *testing.T) {
			got := make(chan []byte, 1)
			app := switching(t, func(c *appConn) {
				c.send("answer")
				c.CloseWrite()
				b, err := io.ReadAll(c.r)
				if err != nil {
					t.Error(err)
				}
				got <- b
			})
			v := visit(t, way(t, app.addr()).addr, askUpgrade)
			v.next(switched)
			if b, err := io.ReadAll(v.r); string(b) != "answer" || err != nil {
				t.Errorf("visitor read %q, %v", b, err)
			}
			v.Write(data)
			v.CloseWrite()
			if b := within(t, "upload", got); !bytes.Equal(b, data) {
				t.Errorf("app got %d bytes", len(b))
			}
		})
	})
}

// A reset of one side is one for the other, never an end (R17).
func TestUpgradeReset(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		t.Run("by the app", func(t *testing.T) {
			app := switching(t, func(c *appConn) {
				c.send("x")
				io.ReadFull(c.r, make([]byte, 1))
				c.SetLinger(0)
			})
			v := visit(t, way(t, app.addr()).addr, askUpgrade)
			v.next(switched + "x")
			v.send("y")
			if b, err := io.ReadAll(v.r); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("visitor read %q, %v", b, err)
			}
		})
		t.Run("by the visitor", func(t *testing.T) {
			read := make(chan error, 1)
			app := switching(t, func(c *appConn) {
				_, err := io.ReadAll(c.r)
				read <- err
			})
			v := visit(t, way(t, app.addr()).addr, askUpgrade)
			v.next(switched)
			v.SetLinger(0)
			v.Close()
			if err := within(t, "end", read); err == nil {
				t.Error("app read a clean end")
			}
		})
		t.Run("by the app, after the visitor's end", func(t *testing.T) {
			app := switching(t, func(c *appConn) {
				io.Copy(io.Discard, c.r)
				c.SetLinger(0)
			})
			v := visit(t, way(t, app.addr()).addr, askUpgrade)
			v.next(switched)
			v.CloseWrite()
			if b, err := io.ReadAll(v.r); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("visitor read %q, %v", b, err)
			}
		})
	})
}

// A TLS connection that is aborted says no close_notify, which would be an end.
func TestAbortTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.TLS)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	read := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.ReadAll(c)
			c.Close()
		}
		read <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "x")
	abort(c)
	if err := within(t, "end", read); err == nil {
		t.Error("the peer read a clean end")
	}
}

// The end of an idle TLS connection is seen as well.
func TestStaleTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	defer s.Close()
	var conns []net.Conn
	tr := &Transport{Dial: func(ctx context.Context) (net.Conn, error) {
		c, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", s.Listener.Addr().String())
		conns = append(conns, c)
		return c, err
	}}
	defer tr.CloseIdle()
	for range 3 {
		if status, err := call(t, tr, "POST", "x"); status != "200" {
			t.Fatal(status, err)
		}
	}
	if len(conns) != 1 {
		t.Errorf("%d connections", len(conns))
	}
	s.CloseClientConnections()
	poll.Until(t, "notice", func() bool { return stale(conns[0]) })
	if status, err := call(t, tr, "POST", "x"); status != "200" {
		t.Error(status, err)
	}
}

// Upgrades that would lead past every check are not asked for, and the request is
// served without.
func TestUpgradeNotPassed(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for _, test := range []struct{ name, version, fields, want string }{
			{"h2c", "1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n", ""},
			{"H2C", "1.1", "Connection: upgrade\r\nUpgrade: H2C\r\n", ""},
			{"TLS", "1.1", "Connection: upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n", ""},
			{"HTTP/2.0", "1.1", "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n", ""},
			{"one of two", "1.1", "Connection: upgrade\r\nUpgrade: h2c, x\r\n", "Upgrade: x"},
			{"one of three", "1.1", "Connection: upgrade\r\nUpgrade: h2c, x\r\nUpgrade: y/1 , tls\r\n", "Upgrade: x, y/1"},
			{"without Connection", "1.1", "Upgrade: x\r\n", ""},
			{"HTTP/1.0", "1.0", "Connection: upgrade\r\nUpgrade: x\r\n", ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				seen := make(chan message, 1)
				app := newApp(t, func(c *appConn) {
					if m, more := c.request(); more {
						seen <- m
						c.send(ok)
					}
				})
				v := visit(t, way(t, app.addr()).addr, "GET / HTTP/"+test.version+"\r\nHost: a\r\n"+test.fields+"\r\n")
				if m := v.message("GET"); m.body != "hi" {
					t.Error(m)
				}
				want := []string{"Host: a"}
				if test.want != "" {
					want = append(want, test.want)
				}
				if m := within(t, "request", seen); !slices.Equal(m.fields, want) {
					t.Errorf("app saw %q, want %q", m.fields, want)
				}
			})
		}
	})
}

// A 101 that nobody asked for, or too early, switches nothing.
func TestUpgradeRefused(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for name, test := range map[string]struct{ request, answer string }{
			"another protocol": {askUpgrade, strings.Replace(switched, "x/1", "h2c", 1)},
			"no protocol":      {askUpgrade, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
			"not asked":        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", switched},
			"before the body":  {strings.Replace(askUpgrade, "\r\n\r\n", "\r\nContent-Length: 9\r\n\r\n", 1), switched},
			"not accepted":     {strings.Replace(askUpgrade, "\r\n\r\n", "\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", 1), switched},
		} {
			t.Run(name, func(t *testing.T) {
				app := newApp(t, func(c *appConn) {
					if c.head() != "" {
						c.send(test.answer)
						io.Copy(io.Discard, c.r)
					}
				})
				if m := visit(t, way(t, app.addr()).addr, test.request).message("GET"); m.line != "502" {
					t.Error(m)
				}
			})
		}
	})
}

// With a body, the upgrade comes after it.
func TestUpgradeAfterBody(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := switching(t, func(c *appConn) { io.Copy(c, c.r) })
		v := visit(t, way(t, app.addr()).addr, strings.Replace(askUpgrade, "\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody", 1)+"early")
		v.next(switched + "early")
		v.CloseWrite()
		if _, err := io.ReadAll(v.r); err != nil {
			t.Error(err)
		}
	})
}

// The caller may refuse the switch.
func TestUpgradeResponse(t *testing.T) {
	app := switching(t, func(c *appConn) { io.Copy(io.Discard, c.r) })
	tr := &Transport{Dial: dialer(app.addr())}
	addr := listen(t, hop(tr, Options{Response: func(res *http.Response) error {
		if res.StatusCode == http.StatusSwitchingProtocols {
			return errors.New("no")
		}
		return nil
	}}, nil))
	if m := visit(t, addr, askUpgrade).message("GET"); m.line != "502" {
		t.Error(m)
	}
}

// closing tells when a body is closed.
type closing struct {
	io.Reader
	closed chan bool
}

func (c closing) Close() error { close(c.closed); return nil }

// A 101 without a connection behind it is none.
func TestUpgradeWithoutConnection(t *testing.T) {
	closed := make(chan bool)
	addr := listen(t, hop(transport(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 101, Header: http.Header{}, Body: closing{http.NoBody, closed}}, nil
	}), Options{}, nil))
	if m := visit(t, addr, askUpgrade).message("GET"); m.line != "502" {
		t.Error(m)
	}
	within(t, "end of the body", closed)
}

// Whoever has seen the 101 may see the end of this process next: by then that is an
// abort for both sides, and the end of neither (R17).
func TestUpgradeLingersBefore101(t *testing.T) {
	one, peer := pair(t)
	go io.Copy(io.Discard, peer)
	visitor, app := lingers(one), lingers(one)
	seen := &watched{Conn: visitor, wrote: func() {
		if v, a := visitor.seconds.Load(), app.seconds.Load(); v != 0 || a != 0 {
			t.Errorf("at the 101 the visitor lingers %d s and the app %d s, want 0", v, a)
		}
	}}
	go peer.Close()
	res := &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: http.Header{}, Body: app}
	if err := switchProtocols(hijackable{httptest.NewRecorder(), seen}, res); err != nil {
		t.Fatal(err)
	}
}

// watched calls wrote before something is written.
type watched struct {
	net.Conn
	wrote func()
}

func (c *watched) NetConn() net.Conn { return c.Conn }

func (c *watched) Write(p []byte) (int, error) {
	c.wrote()
	return c.Conn.Write(p)
}

// hijackable hands over conn.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}
