package forward

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// Where TLS ends here, an end that TLS did not announce is none: the app gets a reset
// (R2, R17), as anybody on the way, or the visitor's death, may have made it.
func TestTerminateCut(t *testing.T) {
	cert := rig.NewCertificate(t, "demo.test")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(2 * patience))
	target, err := ParseRawTarget(l.Addr().String(), "tcp")
	if err != nil {
		t.Fatal(err)
	}
	raw := NewRaw(target, RawOptions{TLS: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}})
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer streams.Close()
	for name, test := range map[string]struct {
		end  func(visitor *tls.Conn)
		want error
	}{
		"with close_notify":    {func(v *tls.Conn) { v.CloseWrite() }, nil},
		"without close_notify": {func(v *tls.Conn) { v.NetConn().(*net.TCPConn).CloseWrite() }, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := net.Dial("tcp", streams.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			stream.SetDeadline(time.Now().Add(patience))
			served := make(chan struct{})
			go func() {
				defer close(served)
				c, err := streams.Accept()
				if err == nil {
					raw.ServeConn(c)
				}
			}()
			io.WriteString(stream, "CONNECT demo HTTP/1.1\r\nHost: demo\r\n\r\n")
			if res, err := http.ReadResponse(bufio.NewReaderSize(stream, 16), nil); err != nil || res.StatusCode != http.StatusOK {
				t.Fatal(res, err)
			}
			visitor := tls.Client(stream, &tls.Config{RootCAs: cert.Roots, ServerName: "demo.test"})
			if _, err := io.WriteString(visitor, "half"); err != nil {
				t.Fatal(err)
			}
			app, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			app.SetDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(app, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			test.end(visitor)
			if rest, err := io.ReadAll(app); len(rest) > 0 || !errors.Is(err, test.want) {
				t.Errorf("the app got %q, %v; want %v", rest, err, test.want)
			}
			app.Close()
			<-served
		})
	}
}
