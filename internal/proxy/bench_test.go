package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

const benchAnswer = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!"

// benchApp answers every request with the same bytes.
func benchApp(b *testing.B) string {
	return newApp(b, func(c *appConn) {
		buf := make([]byte, 4<<10)
		for {
			if _, err := c.TCPConn.Read(buf); err != nil {
				return
			}
			if _, err := io.WriteString(c, benchAnswer); err != nil {
				return
			}
		}
	}).addr()
}

// BenchmarkRoundTrip is a small GET on a kept connection.
func BenchmarkRoundTrip(b *testing.B) {
	tr := &Transport{Dial: dialer(benchApp(b))}
	defer tr.CloseIdle()
	req, _ := http.NewRequest("GET", "http://a.example/", nil)
	req.Header.Set("User-Agent", "x")
	b.ReportAllocs()
	for b.Loop() {
		res, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// BenchmarkNetHTTP is the same on http.Transport, for comparison.
func BenchmarkNetHTTP(b *testing.B) {
	addr := benchApp(b)
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequest("GET", "http://"+addr+"/", nil)
	req.Header.Set("User-Agent", "x")
	b.ReportAllocs()
	for b.Loop() {
		res, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// BenchmarkForward is a small GET through Forward and Transport, once and twice.
func BenchmarkForward(b *testing.B) {
	for name, way := range map[string]func(testing.TB, string) *path{"one hop": oneHop, "two hops": twoHops} {
		b.Run(name, func(b *testing.B) {
			c, err := net.Dial("tcp", way(b, benchApp(b)).addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, len(benchAnswer))
			b.ReportAllocs()
			for b.Loop() {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\n\r\n")
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDownload is a body of 1 MiB through Forward and Transport.
func BenchmarkDownload(b *testing.B) {
	for name, way := range map[string]func(testing.TB, string) *path{"one hop": oneHop, "two hops": twoHops} {
		b.Run(name, func(b *testing.B) {
			const size = 1 << 20
			body := make([]byte, size)
			app := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				w.Write(body)
			}))
			client, url := clientOf(b, 1), "http://"+way(b, app).addr
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				res, err := client.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
					b.Fatal(n, err)
				}
				res.Body.Close()
			}
		})
	}
}

// BenchmarkUpload is the same in the other direction.
func BenchmarkUpload(b *testing.B) {
	for name, way := range map[string]func(testing.TB, string) *path{"one hop": oneHop, "two hops": twoHops} {
		b.Run(name, func(b *testing.B) {
			const size = 1 << 20
			body := make([]byte, size)
			app := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
			client, url := clientOf(b, 1), "http://"+way(b, app).addr
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				res, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				res.Body.Close()
			}
		})
	}
}

// BenchmarkHead is the reading of an answer's header section, and net/http's way.
func BenchmarkHead(b *testing.B) {
	from := strings.NewReader("")
	r := bufio.NewReaderSize(from, bufferSize)
	e := &exchange{c: &conn{r: r, t: new(Transport)}, req: &http.Request{Method: "GET"}}
	for name, read := range map[string]func() *http.Response{
		"plain": e.plainHead,
		"net-http": func() *http.Response {
			res, _ := http.ReadResponse(r, e.req)
			return res
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				from.Reset(benchAnswer)
				r.Reset(from)
				r.Peek(1)
				if read() == nil {
					b.Fatal("it is not read")
				}
			}
		})
	}
}
