package proxy

import (
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
)

// benchRequest is a browser's, as the tunnel's server passes it on.
const benchRequest = "GET /index.html?x=1 HTTP/1.1\r\nHost: demo.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
	"Accept: text/html,*/*;q=0.8\r\nAccept-Encoding: gzip, br\r\nAccept-Language: en\r\nX-Forwarded-For: 192.0.2.1\r\n" +
	"X-Forwarded-Proto: https\r\nX-Forwarded-Host: demo.example.com\r\n\r\n"

// BenchmarkServe is a small GET through Forward and Transport on one connection,
// served by Server and by http.Server.
func BenchmarkServe(b *testing.B) {
	for name, serve := range map[string]serveFunc{"Server": serveConns, "http.Server": serve} {
		for network, connect := range map[string]func(testing.TB) (net.Conn, net.Listener){"tcp": tcpPair, "stream": streamPair} {
			b.Run(name+"/"+network, func(b *testing.B) {
				tr := &Transport{Dial: dialer(benchApp(b))}
				defer tr.CloseIdle()
				c, l := connect(b)
				serve(b, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if err := Forward(w, r, tr, Options{}); err != nil {
						b.Error(err)
					}
				}))
				defer c.Close()
				benchExchange(b, c, len(benchAnswer))
			})
		}
	}
}

// BenchmarkServeMany is BenchmarkServe with 64 streams of one session at once.
func BenchmarkServeMany(b *testing.B) {
	for name, serve := range map[string]serveFunc{"Server": serveConns, "http.Server": serve} {
		b.Run(name, func(b *testing.B) {
			tr := &Transport{Dial: dialer(benchApp(b))}
			defer tr.CloseIdle()
			server, client := sessions(b)
			serve(b, streams{client}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := Forward(w, r, tr, Options{}); err != nil {
					b.Error(err)
				}
			}))
			b.ReportAllocs()
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				c, err := server.Open(b.Context())
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				buf := make([]byte, len(benchAnswer))
				for pb.Next() {
					io.WriteString(c, benchRequest)
					if _, err := io.ReadFull(c, buf); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkServeAlone is the same without Forward: what the server itself costs.
func BenchmarkServeAlone(b *testing.B) {
	for name, serve := range map[string]serveFunc{"Server": serveConns, "http.Server": serve} {
		b.Run(name, func(b *testing.B) {
			c, l := tcpPair(b)
			serve(b, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h["Date"] = []string{"Thu, 01 Jan 1970 00:00:00 GMT"}
				h["Content-Type"] = []string{"text/plain"}
				h["Content-Length"] = []string{"13"}
				io.WriteString(w, "Hello, world!")
			}))
			defer c.Close()
			benchExchange(b, c, len(benchAnswer))
		})
	}
}

func benchExchange(b *testing.B, c net.Conn, size int) {
	buf := make([]byte, size)
	b.ReportAllocs()
	for b.Loop() {
		io.WriteString(c, benchRequest)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// tcpPair is a connection, and the listener that has it.
func tcpPair(t testing.TB) (net.Conn, net.Listener) {
	t.Helper()
	l := loopback(t)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return c, l
}

// streamPair is a stream, and the listener that has it.
func streamPair(t testing.TB) (net.Conn, net.Listener) {
	t.Helper()
	server, client := sessions(t)
	c, err := server.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, streams{client}
}
