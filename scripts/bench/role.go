package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// playRole is a child process that ends when its standard input does: a role and its arguments.
func playRole(args []string) error {
	go rig.ExitWithParent()
	play := map[string]struct {
		args int
		role func(a []string) error
	}{
		"app":          {4, func(a []string) error { return serveApp(a[0], a[1], a[2], folder(a[3])) }},   // PLAIN SECURE RAW CERTIFICATES
		"relay":        {2, serveRelay},                                                                   // LISTEN TARGET
		"udp-relay":    {2, func(a []string) error { return serveDatagramRelay(a[0], a[1]) }},             // LISTEN TARGET
		"proxy":        {2, func(a []string) error { return serveProxy(a, &bufferPool{}) }},               // LISTEN TARGET
		"plain-proxy":  {2, func(a []string) error { return serveProxy(a, nil) }},                         // LISTEN TARGET
		"secure-proxy": {3, func(a []string) error { return serveSecureProxy(a[0], a[1], folder(a[2])) }}, // LISTEN URL CERTIFICATES
		"path":         {4, servePath},                                                                    // LISTEN TARGET ROUNDTRIP BYTES-A-SECOND
		"idle":         {2, holdIdle},                                                                     // SERVER COUNT
		"origin":       {3, serveOrigin},                                                                  // SERVER NAME TARGET
	}
	if len(args) == 0 {
		return errors.New("want a role and its arguments")
	}
	p, known := play[args[0]]
	if !known || len(args) != 1+p.args {
		return fmt.Errorf("unknown role %q", args)
	}
	return p.role(args[1:])
}

// serveRelay is the relay hop: bytes are copied as io.Copy does it, which on Linux is splice(2).
func serveRelay(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go relay(c, args[1])
	}
}

func relay(c net.Conn, target string) {
	defer c.Close()
	d, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer d.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(d, c)
	}()
	copyHalf(c, d)
	<-done
}

// copyHalf copies one direction and passes its end on.
func copyHalf(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if err != nil {
		dst.Close()
		src.Close()
		return
	}
	_ = dst.(*net.TCPConn).CloseWrite()
}

// serveProxy is the proxy hop.
func serveProxy(args []string, pool httputil.BufferPool) error {
	h, err := proxyHandler("http://"+args[1], pool, nil)
	if err != nil {
		return err
	}
	return http.ListenAndServe(args[0], h)
}

// originAttached is what the role prints when the first connection is attached.
const originAttached = "attached"

// serveOrigin is a proxy hop that attaches itself; args are SERVER, NAME and TARGET.
func serveOrigin(args []string) error {
	h, err := proxyHandler("http://"+args[2], &bufferPool{}, nil)
	if err != nil {
		return err
	}
	o := &rig.Origin{Proxy: args[0], Name: args[1], Token: "bench", Handler: h, Conns: 256}
	return o.Run(context.Background(), 0, func(string) { fmt.Println(originAttached) })
}

// proxyHandler is the standard library's proxy, with connections kept, and copy buffers where there is
// a pool for them.
func proxyHandler(target string, pool httputil.BufferPool, trust *tls.Config) (http.Handler, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true, TLSClientConfig: trust},
		BufferPool: pool,
	}, nil
}

// A bufferPool keeps the proxy's copy buffers. Without one it allocates 32 KiB for each answer, and
// the yardstick would measure the garbage collector.
type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put(&buf) }

// servePath is the long path; args are LISTEN, TARGET, ROUNDTRIP and BYTES-A-SECOND, each way.
func servePath(args []string) error {
	roundTrip, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	rate, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	p := rig.NewPath(args[1], roundTrip/2, rate)
	defer p.Close()
	l, err := p.Listen(args[0])
	if err != nil {
		return err
	}
	return p.Serve(l)
}
