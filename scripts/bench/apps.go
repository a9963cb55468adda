package main

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/revtun/tunnel/internal/rig"
)

// serveApp is the local app of all variants: HTTP at plain, the same over TLS and QUIC at secure, and
// the app without HTTP at raw, over TCP and UDP.
func serveApp(plain, secure, raw string, certs folder) error {
	app := rig.NewPlainApp()
	ended := make(chan error)
	go func() { ended <- serveDatagramEcho(raw) }()
	go func() { ended <- serveStreams(raw) }()
	go func() { ended <- serveSecure(secure, app, certs) }()
	go func() { ended <- http.ListenAndServe(plain, app) }()
	return <-ended
}

// serveSecure serves HTTP/1.1 and HTTP/2 over TLS, and HTTP/3 at the same port.
func serveSecure(addr string, h http.Handler, certs folder) error {
	config, err := certs.server()
	if err != nil {
		return err
	}
	ended := make(chan error)
	go func() {
		s := &http3.Server{Addr: addr, Handler: h, TLSConfig: http3.ConfigureTLSConfig(config)}
		ended <- s.ListenAndServe()
	}()
	go func() {
		s := &http.Server{Addr: addr, Handler: h, TLSConfig: config.Clone()}
		ended <- s.ListenAndServeTLS("", "")
	}()
	return <-ended
}

// serveSecureProxy is the proxy hop that ends TLS. Its target may have TLS as well, with the same
// certificate.
func serveSecureProxy(addr, target string, certs folder) error {
	roots, err := certs.roots()
	if err != nil {
		return err
	}
	h, err := proxyHandler(target, &bufferPool{}, &tls.Config{RootCAs: roots, ServerName: benchHost})
	if err != nil {
		return err
	}
	return serveSecure(addr, h, certs)
}

// What a connection to the app without HTTP begins with.
const (
	askEcho = 'e' // every byte comes back
	askDown = 'd' // and 8 bytes: so many come
	askUp   = 'u' // and 8 bytes: so many are read, and 8 bytes of the count come back
)

func serveStreams(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serveStream(c)
		}()
	}
}

// serveStream is one connection. Errors end it, and its visitor notices.
func serveStream(c net.Conn) {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:1]); err != nil {
		return
	}
	buf := make([]byte, 64<<10)
	if head[0] == askEcho {
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, buf) // without splice(2)
		return
	}
	if _, err := io.ReadFull(c, head[1:]); err != nil {
		return
	}
	bytes := int64(binary.BigEndian.Uint64(head[1:]))
	switch head[0] {
	case askDown:
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, io.LimitReader(zeros{}, bytes), buf)
	case askUp:
		n, _ := io.CopyBuffer(io.Discard, io.LimitReader(c, bytes), buf)
		_, _ = c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
}

// datagramBuffer is what the ends and hops of datagrams ask the system to keep for them, so that what
// is lost is lost between them.
const datagramBuffer = 2 << 20

// listenDatagrams opens a socket with that buffer; the system may give less.
func listenDatagrams(addr string) (*net.UDPConn, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	return c, c.SetReadBuffer(datagramBuffer)
}

// serveDatagramEcho sends every datagram back.
func serveDatagramEcho(addr string) error {
	c, err := listenDatagrams(addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], from) // one that is lost is counted where it is missed
	}
}

// serveDatagramRelay is the relay hop of datagrams: a socket and a goroutine for each visitor.
func serveDatagramRelay(addr, target string) error {
	c, err := listenDatagrams(addr)
	if err != nil {
		return err
	}
	visitors := map[netip.AddrPort]net.Conn{}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		to := visitors[from]
		if to == nil {
			if to, err = dialDatagrams(target); err != nil {
				return err
			}
			visitors[from] = to
			go relayAnswers(c, from, to)
		}
		_, _ = to.Write(buf[:n])
	}
}

func relayAnswers(c *net.UDPConn, visitor netip.AddrPort, app net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := app.Read(buf)
		if err != nil {
			time.Sleep(time.Millisecond) // nobody listens there yet
			continue
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], visitor)
	}
}

// dialDatagrams is a socket that sends to addr and gets its answers.
func dialDatagrams(addr string) (net.Conn, error) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return nil, err
	}
	return c, c.(*net.UDPConn).SetReadBuffer(datagramBuffer)
}
