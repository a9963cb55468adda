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
	"sync"
	"time"
)

func main() {
	proxy := flag.String("proxy", "http://127.0.0.1:8080", "`URL` of the proxy")
	origin := flag.String("origin", "http://demo.localhost:8080", "`URL` that visitors use, without a path")
	flag.Parse()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from behind NAT by %s: %s %s\n", r.Proto, r.Method, r.RequestURI)
	})
	// The proxy is the client of HTTP/2. One that has gone without a word answers no PING.
	server := http.Server{Handler: app, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 10 * time.Second}}
	server.Protocols.SetUnencryptedHTTP2(true)
	for ; ; time.Sleep(time.Second) {
		conn, err := attach(*proxy, *origin, os.Getenv("TUNNEL_TOKEN"))
		if err == nil {
			log.Printf("%s leads here", *origin)
			err = server.Serve(conn) // until the connection ends
		}
		log.Print(err)
	}
}

// attach asks for the requests of the origin, to be served by HTTP/2 on the connection
// that it returns.
func attach(proxy, origin, token string) (*turned, error) {
	u, err := url.Parse(proxy)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if u.Scheme == "https" {
		conn, err = tls.Dial("tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), nil)
	} else {
		conn, err = net.Dial("tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")))
	}
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(conn, "GET /.well-known/ptth/%s/ HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\nAuthorization: Bearer %s\r\n\r\n", url.QueryEscape(origin), u.Host, token)
	t := &turned{Conn: conn, ahead: bufio.NewReader(conn), once: make(chan net.Conn, 1)}
	t.once <- t
	t.ended = sync.OnceFunc(func() { close(t.once) })
	res, err := http.ReadResponse(t.ahead, nil)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		cause, _ := io.ReadAll(res.Body)
		err = fmt.Errorf("%s: %s", res.Status, cause)
	}
	if err != nil {
		conn.Close()
	}
	return t, err
}

// turned is the connection: what was read ahead of the 101 belongs to HTTP/2. It is also
// a listener, which gives the connection once and ends with it.
type turned struct {
	net.Conn
	ahead *bufio.Reader
	once  chan net.Conn
	ended func()
}

func (t *turned) Read(p []byte) (int, error) { return t.ahead.Read(p) }
func (t *turned) Close() error               { t.ended(); return t.Conn.Close() }
func (t *turned) Addr() net.Addr             { return t.LocalAddr() }
func (t *turned) Accept() (net.Conn, error) {
	if conn := <-t.once; conn != nil {
		return conn, nil
	}
	return nil, io.EOF
}
