package edge_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/transport"
)

// The kernel is asked after an origin of PTTH that is gone, whatever stands around its
// connection: the limits, TLS, the PROXY protocol.
func TestKeptAlive(t *testing.T) {
	certificate := rig.NewCertificate(t, "mine.test")
	intervals := make(chan int, 1)
	h := &edge.HTTP{Domain: "mine.test", Gate: new(edge.Gate)}
	h.Own = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := transport.AcceptPTTH(w, "http/1.1", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		intervals <- probeInterval(t, conn)
	})
	limits := edge.Limits{HeaderTimeout: patience}
	for _, test := range []struct {
		name   string
		door   *edge.Door
		header []byte
	}{
		{"plain", &edge.Door{Limits: limits}, nil},
		{"TLS", &edge.Door{Limits: limits, GetCertificate: certificate.Get}, nil},
		{"TLS behind a proxy", &edge.Door{
			Limits: limits, GetCertificate: certificate.Get, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		}, proxyHeader(t, "203.0.113.7:4711")},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := loopback(t)
			s := h.Server(limits)
			var serving sync.WaitGroup
			serving.Go(func() { s.Serve(test.door.Listener(h.Gate.Listener(l))) })
			defer func() { s.Close(); serving.Wait() }()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			c.Write(test.header)
			if test.door.GetCertificate != nil {
				c = tls.Client(c, &tls.Config{RootCAs: certificate.Roots, ServerName: "mine.test"})
			}
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: mine.test\r\n\r\n")
			select {
			case got := <-intervals:
				if got != 10 {
					t.Errorf("the kernel asks every %d s", got)
				}
			case <-time.After(patience):
				t.Fatal("nothing was upgraded")
			}
		})
	}
}

// probeInterval is how often the kernel asks a peer that is silent, in seconds.
func probeInterval(t *testing.T, conn net.Conn) (seconds int) {
	for {
		if tcp, ok := conn.(*net.TCPConn); ok {
			raw, err := tcp.SyscallConn()
			if err == nil {
				raw.Control(func(fd uintptr) { seconds, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL) })
			}
			if err != nil {
				t.Error(err)
			}
			return seconds
		}
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			t.Errorf("a %T hides the connection", conn)
			return 0
		}
		conn = inner.NetConn()
	}
}
