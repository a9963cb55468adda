//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// upload is what the app has seen of one: how much came, and how it ended.
type upload struct {
	n   int64
	err error // nil: a clean end
}

// uploads is an app that tells of each upload when it begins, and when it ends.
type uploads struct{ begun, ended chan upload }

func newUploads() *uploads {
	return &uploads{begun: make(chan upload, 1), ended: make(chan upload, 1)}
}

func (u *uploads) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	u.begun <- upload{}
	n, err := io.Copy(io.Discard, r.Body)
	u.ended <- upload{n, err}
}

// TestCutUploads lets the visitor die, and the client, and the server, amid
// uploads of each framing, to an app of HTTP/1.1 and of HTTP/2: the app never
// takes the request for a whole one (R2).
func TestCutUploads(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		for _, scheme := range []string{"http://", "h2c://"} {
			u := newUploads()
			target := scheme + app(t, u)
			public := expose(t, target, transport)
			for _, framing := range []string{"length", "chunked", "h2"} {
				for _, how := range []string{"reset", "close", "half-close"} {
					for _, percent := range []int{0, 1, 50, 99, 100} {
						if framing == "h2" && how == "half-close" || percent == 100 && framing == "length" {
							continue // there is no such thing; and this one is whole
						}
						name := fmt.Sprint(scheme, framing, " ", how, " at ", percent, "%")
						cutUpload(t, u, name, public, framing, how, percent)
						if got := awaitOn(t, u.ended, name+": the end"); got.err == nil {
							t.Errorf("%s: the app has %d bytes and a clean end", name, got.n)
						}
					}
				}
			}
			for _, victim := range []string{"client", "server"} {
				killedUpload(t, u, target, transport, victim)
			}
		}
	})
}

// cutUpload sends a part of an upload, and when the app has it before it, ends as
// how says.
func cutUpload(t *testing.T, u *uploads, name, public, framing, how string, percent int) {
	t.Helper()
	body := noise(300_000, 31)
	part := body[:len(body)*percent/100]
	if framing == "h2" {
		cutSecond(t, u, name, public, how, part)
		return
	}
	conn := dialPublic(t, public)
	defer conn.Close()
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\n", hostOf(t, public))
	var err error
	if framing == "length" {
		_, err = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(body), part)
	} else {
		all := chunked(part, 10_000)
		_, err = fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n%s", head, all[:len(all)-len("0\r\n\r\n")])
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	awaitOn(t, u.begun, name+": the begin")
	switch how {
	case "reset":
		conn.SetLinger(0)
	case "half-close":
		conn.CloseWrite()
		// What is answered to half a request is an error, or nothing.
		if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil && res.StatusCode < 400 {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

// cutSecond is cutUpload for HTTP/2: a reset is one of the stream.
func cutSecond(t *testing.T, u *uploads, name, public, how string, part []byte) {
	t.Helper()
	conns := make(chan net.Conn, 1)
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := loopback(ctx, network, addr)
		if err == nil {
			conns <- c
		}
		return c, err
	}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithCancel(bounded(t, patience))
	defer cancel()
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, "POST", public, r)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		res, err := tr.RoundTrip(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode < 400 {
				t.Errorf("%s: %s", name, res.Status)
			}
		}
		done <- err
	}()
	if _, err := w.Write(part); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	awaitOn(t, u.begun, name+": the begin")
	if how == "reset" {
		cancel()
	} else {
		awaitOn(t, conns, "connection").Close()
	}
	awaitOn(t, done, name+": end of the request")
	w.CloseWithError(errors.New("cut"))
}

// killedUpload kills the client or the server amid an upload.
func killedUpload(t *testing.T, u *uploads, target, transport, victim string) {
	t.Helper()
	for _, framing := range []string{"Content-Length: 1000000\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"} {
		s := startServer(t)
		c := startClient(t, target, "--server", s.url, "--name", "app", "--transport", transport)
		conn := dialPublic(t, c.url)
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\n%s", hostOf(t, c.url), framing)
		awaitOn(t, u.begun, "the begin")
		if victim == "client" {
			c.kill()
		} else {
			s.kill()
		}
		if got := awaitOn(t, u.ended, "the end"); got.err == nil {
			t.Errorf("%s killed: the app has %d bytes and a clean end", victim, got.n)
		}
	}
}

// dialPublic is a bare connection to where public URLs lead.
func dialPublic(t *testing.T, public string) *net.TCPConn {
	t.Helper()
	conn, err := loopback(t.Context(), "tcp", hostOf(t, public))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// refuser is an app that answers 413 after 1 MB, and counts its connections.
type refuser struct{ open atomic.Int64 }

func (r *refuser) serve(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 1<<20)
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				r.open.Add(1)
			case http.StateClosed:
				r.open.Add(-1)
			}
		},
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// TestRefusedUpload has the app refuse uploads of 1 GB at 1 MB: the visitor gets
// its answer, long before it has sent all, and nothing stays behind (R3). The
// session may have two requests under way, so a third one finds out what stays.
func TestRefusedUpload(t *testing.T) {
	const size = 1 << 30
	eachTransport(t, func(t *testing.T, transport string) {
		a := &refuser{}
		s := startServer(t, "--max-requests", "2")
		c := startClient(t, a.serve(t), "--server", s.url, "--name", "app", "--transport", transport)
		for range 3 {
			for _, framing := range []string{fmt.Sprint("Content-Length: ", size), "Transfer-Encoding: chunked"} {
				if sent := refusedUpload(t, c.url, framing, size); sent >= size/2 {
					t.Errorf("%s: %d bytes were sent before the end", framing, sent)
				}
			}
			refusedSecond(t, c.url, size)
			refusedByCurl(t, c.url, size)
		}
		eventually(t, "end of the app's connections", func() bool { return a.open.Load() == 0 })
	})
}

// refusedUpload reads the answer while it sends, and returns how much that was.
func refusedUpload(t *testing.T, public, framing string, size int) (sent int64) {
	t.Helper()
	conn := dialPublic(t, public)
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", hostOf(t, public), framing)
	var n atomic.Int64
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		piece := bytes.Repeat([]byte("x"), 64<<10)
		if strings.HasPrefix(framing, "Transfer") {
			piece = fmt.Appendf(nil, "10000\r\n%s\r\n", piece)
		}
		for n.Load() < int64(size) {
			written, err := conn.Write(piece)
			n.Add(int64(written))
			if err != nil {
				return
			}
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", framing, err)
	}
	body, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "too large\n" || err != nil {
		t.Errorf("%s: %s %q, %v", framing, res.Status, body, err)
	}
	conn.Close()
	awaitOn(t, stopped, "end of the upload")
	return n.Load()
}

// refusedByCurl is the same with a real program, and a file with a hole in it.
func refusedByCurl(t *testing.T, public string, size int64) {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Log("curl is missing: apt-get install curl")
		return
	}
	c := curl{path: path, dir: t.TempDir()}
	file := filepath.Join(c.dir, "large")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	// To HTTP/2 with prior knowledge curl fails on an early answer of any net/http
	// server. -H Expect: sends the body at once.
	cmd := c.command(t, public, "--http1.1", "-H", "Expect:", "-T", file, "-w", " %{http_code} %{size_upload}", public+"/")
	_, out, _ := run(t, cmd)
	var status int
	var sent int64
	if _, err := fmt.Sscanf(out, "too large\n %d %d", &status, &sent); err != nil || status != http.StatusRequestEntityTooLarge || sent >= size/2 {
		t.Errorf("curl got %q, %v; want 413 long before the end", out, err)
	}
}

// refusedSecond is the same over HTTP/2.
func refusedSecond(t *testing.T, public string, size int64) {
	t.Helper()
	tr := &http.Transport{DialContext: loopback, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	body := &endless{}
	req, err := http.NewRequestWithContext(bounded(t, patience), "POST", public, io.LimitReader(body, size))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusRequestEntityTooLarge || string(answer) != "too large\n" || err != nil || body.n.Load() >= size/2 {
		t.Errorf("HTTP/2: %s %q, %v, after %d bytes", res.Status, answer, err, body.n.Load())
	}
}

// endless counts what is read of it.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n.Add(int64(len(p)))
	return len(p), nil
}
