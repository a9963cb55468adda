package main

import (
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

// playRole is a child process: "app LISTEN", "relay LISTEN TARGET", "proxy LISTEN TARGET",
// "plain-proxy LISTEN TARGET", "path LISTEN TARGET ROUNDTRIP BYTES-A-SECOND" or "idle SERVER COUNT". It ends when its standard input does.
func playRole(args []string) error {
	go rig.ExitWithParent()
	if len(args) < 2 {
		return errors.New("want a role and its arguments")
	}
	switch {
	case args[0] == "idle":
		return holdIdle(args[1:])
	case args[0] == "path" && len(args) == 5:
		return servePath(args[1:])
	}
	l, err := net.Listen("tcp", args[1])
	if err != nil {
		return err
	}
	switch {
	case args[0] == "app":
		return http.Serve(l, rig.NewPlainApp())
	case args[0] == "relay" && len(args) == 3:
		return serveRelay(l, args[2])
	case args[0] == "proxy" && len(args) == 3:
		return serveProxy(l, args[2], &bufferPool{})
	case args[0] == "plain-proxy" && len(args) == 3:
		return serveProxy(l, args[2], nil)
	}
	return fmt.Errorf("unknown role %q", args)
}

// serveRelay is the relay hop: bytes are copied as io.Copy does it, which on Linux is splice(2).
func serveRelay(l net.Listener, target string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go relay(c, target)
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

// serveProxy is the proxy hop: the standard library's, with connections kept, and copy buffers where
// there is a pool for them.
func serveProxy(l net.Listener, target string, pool httputil.BufferPool) error {
	return http.Serve(l, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: target})
			r.SetXForwarded()
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true},
		BufferPool: pool,
	})
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
