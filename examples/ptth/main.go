// Command ptth is an HTTP server behind NAT that attaches itself to a reverse proxy by
// PTTH, with the standard library alone. docs/ptth.md tells what is on the wire.
//
//	TUNNEL_TOKEN=… ptth -proxy https://tunnel.example.com -origin https://demo.tunnel.example.com
package main

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

func main() {
	proxy := flag.String("proxy", "http://127.0.0.1:8080", "`URL` of the proxy")
	origin := flag.String("origin", "http://demo.localhost:8080", "`URL` that visitors use, without a path")
	flag.Parse()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from behind NAT by %s: %s %s\n", r.Proto, r.Method, r.RequestURI)
	})
	for ; ; time.Sleep(time.Second) {
		log.Print(serve(*proxy, *origin, os.Getenv("TUNNEL_TOKEN"), app))
	}
}

// serve attaches one connection, serves its requests until it ends, and returns why.
func serve(proxy, origin, token string, app http.Handler) error {
	u, err := url.Parse(proxy)
	if err != nil {
		return err
	}
	conn, err := dial(u)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Ask for the requests of the origin, and offer to serve them by HTTP/2.
	fmt.Fprintf(conn, "GET /.well-known/ptth/%s/ HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\nAuthorization: Bearer %s\r\n\r\n", url.QueryEscape(origin), u.Host, token)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		cause, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s", res.Status, cause)
	}
	log.Printf("%s leads here", origin)
	// The roles turn around: the proxy is the client of HTTP/2 now. What was read ahead
	// of the 101 belongs to that.
	l := &listener{conn: turned{conn, r}, ended: make(chan error)}
	server := http.Server{Handler: app, Protocols: new(http.Protocols), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			close(l.ended)
		}
	}}
	server.Protocols.SetUnencryptedHTTP2(true)
	return server.Serve(l)
}

// dial connects to u's host and port.
func dial(u *url.URL) (net.Conn, error) {
	if u.Scheme == "https" {
		return tls.Dial("tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), nil)
	}
	return net.Dial("tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")))
}

// turned is a connection that has been read ahead of.
type turned struct {
	net.Conn
	r *bufio.Reader
}

func (t turned) Read(p []byte) (int, error) { return t.r.Read(p) }

// listener has one connection to give, and ends with it.
type listener struct {
	conn  net.Conn
	given bool
	ended chan error
}

func (l *listener) Accept() (net.Conn, error) {
	if l.given {
		<-l.ended
		return nil, io.EOF
	}
	l.given = true
	return l.conn, nil
}

func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return l.conn.LocalAddr() }
