//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestCutAnswers kills the app, the client or the server amid answers of each
// framing, at offsets from 0 to the last byte: none looks complete that is not,
// wherever a direct connection would show it (R1).
//
// Each kill cuts the answers of one wave, all offsets of all framings at once, so
// that there are thousands: 5,280, and with E2E_CUTS=full twice as many. The kill
// comes when what was sent has settled at the visitor, or while it is in a rush.
func TestCutAnswers(t *testing.T) {
	all := tally{}
	eachTransport(t, func(t *testing.T, transport string) {
		for _, victim := range []string{"app killed", "app resets", "client", "server"} {
			for _, when := range []string{"settled", "rush"} {
				if (when == "rush") != (transport == "websocket") && os.Getenv("E2E_CUTS") != "full" {
					continue
				}
				t.Run(victim+", "+when, func(t *testing.T) {
					w := newWave(t, transport)
					w.begin(t, when == "settled")
					w.strike(t, victim)
					all.add(w.judge(t))
				})
			}
		}
	})
	t.Log(all)
	// Of each kind there must be some, or the test tests nothing.
	for _, kind := range []string{"cut in the body", "502", "whole"} {
		if all[kind] == 0 && !t.Failed() {
			t.Errorf("no answer was %s: %v", kind, all)
		}
	}
}

// tally counts answers by how they ended.
type tally map[string]int

func (c tally) add(other tally) {
	for kind, n := range other {
		c[kind] += n
	}
}

func (c tally) String() string {
	var b strings.Builder
	sum := 0
	for _, kind := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%s: %d, ", kind, c[kind])
		sum += c[kind]
	}
	return fmt.Sprintf("%sin all: %d", b.String(), sum)
}

// wave is a tunnel of its own and all the answers that one kill cuts.
type wave struct {
	app     *cutProcess
	server  *tunnelServer
	clients []*tunnelClient
	runs    []*cutRun
}

// cutRun is one request and its answer.
type cutRun struct {
	id      string
	f       *framing
	n       int    // bytes that the app sends before it waits
	version string // of HTTP at the visitor
	direct  bool   // to the app itself
	base    string
	c       *http.Client // of HTTP/2
	over    chan struct{}

	seen   atomic.Int64 // bytes of the body so far
	status int
	code   string // Tunnel-Error
	body   []byte
	err    error // at the end of the answer; nil: it looks complete
}

func newWave(t *testing.T, transport string) *wave {
	w := &wave{app: startCutApp(t), server: startServer(t, "--park", "50ms")}
	args := []string{"--server", w.server.url, "--transport", transport, "--name"}
	w.clients = []*tunnelClient{
		startClient(t, w.app.first, append(args, "one")...),
		startClient(t, "h2c://"+w.app.second, append(args, "two")...),
	}
	tr := &http.Transport{DialContext: loopback, DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	second := &http.Client{Transport: tr, Timeout: 2 * patience}
	for _, f := range framings() {
		public, direct, nearest := w.clients[0].url, "http://"+w.app.first, "1.1"
		if f.second {
			public, direct, nearest = w.clients[1].url, "http://"+w.app.second, "2"
		}
		versions := []string{"1.0", "1.1", "2"}
		if f.name == "grpc" {
			versions = versions[2:]
		}
		for _, n := range f.offsets(20) {
			for _, v := range versions {
				w.runs = append(w.runs, &cutRun{f: f, n: n, version: v, base: public, c: second})
			}
			w.runs = append(w.runs, &cutRun{f: f, n: n, version: nearest, base: direct, direct: true, c: second})
		}
	}
	for i, r := range w.runs {
		r.id, r.over = strconv.Itoa(i), make(chan struct{})
	}
	return w
}

// begin makes all requests and waits until the app has sent of each answer what
// it is to send; where settled, also until that has come out at the other end.
func (w *wave) begin(t *testing.T, settled bool) {
	t.Helper()
	for _, r := range w.runs {
		go r.visit()
	}
	for _, r := range w.runs {
		if _, err := w.app.out.find(func(line string) (string, bool) { return "", line == "wrote "+r.id }); err != nil {
			t.Fatalf("%s did not reach the app: %v", r, err)
		}
	}
	if !settled {
		return
	}
	deadline := time.Now().Add(patience / 2)
	for _, r := range w.runs {
		want := r.f.shown(r.n)
		switch {
		case r.direct:
			continue // net/http's reader of chunks may keep some back
		case r.f.name == "h2 length" && r.n == r.f.total()-1:
			want-- // the last byte waits for the end of the app's stream
		}
		for ; int(r.seen.Load()) < want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s: %d bytes have arrived, want %d", r, r.seen.Load(), want)
				break
			}
		}
	}
}

func (w *wave) strike(t *testing.T, victim string) {
	switch victim {
	case "app killed":
		w.app.kill()
	case "app resets":
		w.app.signal(t, syscall.SIGUSR1)
	case "client":
		for _, c := range w.clients {
			c.kill()
		}
	case "server":
		w.server.kill()
	}
	if victim == "client" || victim == "server" {
		for _, r := range w.runs {
			if !r.direct {
				<-r.over
			}
		}
		w.app.kill() // for the direct ones, which are not judged
	}
	for _, r := range w.runs {
		<-r.over
	}
}

func (r *cutRun) String() string {
	return fmt.Sprintf("%s cut at %d of %d, to HTTP/%s, direct %v", r.f.name, r.n, r.f.total(), r.version, r.direct)
}

// visit makes the request and reads the answer to its end.
func (r *cutRun) visit() {
	defer close(r.over)
	res, err := r.request()
	if err != nil {
		r.err = err
		return
	}
	defer res.Body.Close()
	r.status, r.code = res.StatusCode, res.Header.Get("Tunnel-Error")
	buf := make([]byte, 32<<10)
	for r.err == nil {
		var n int
		n, r.err = res.Body.Read(buf)
		r.body = append(r.body, buf[:n]...)
		r.seen.Add(int64(n))
	}
	if r.err == io.EOF {
		r.err = nil
	}
	if r.err == nil && r.f.name == "grpc" && r.status == http.StatusOK && res.Trailer.Get("Grpc-Status") == "" {
		r.body = append(r.body, " and no status"...) // it is not complete without
	}
}

func (r *cutRun) request() (*http.Response, error) {
	req, err := http.NewRequest("GET", fmt.Sprintf("%s/%s/%d", r.base, strings.ReplaceAll(r.f.name, " ", "%20"), r.n), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Id", r.id)
	if r.f.name == "grpc" {
		req.Method = "POST"
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
	}
	if r.version == "2" {
		return r.c.Do(req)
	}
	conn, err := loopback(context.Background(), "tcp", req.URL.Host)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/%s\r\nHost: %s\r\nId: %s\r\nConnection: close\r\n\r\n", req.URL.RequestURI(), r.version, req.URL.Host, r.id)
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		conn.Close()
		return nil, err
	}
	res.Body = &connBody{res.Body, conn}
	return res, nil
}

// connBody closes its connection, too.
type connBody struct {
	io.ReadCloser
	conn net.Conn
}

func (b *connBody) Close() error { return b.conn.Close() }

// judge sorts the answers, and fails the test for each that looks complete and
// is not, unless the direct one does so too.
func (w *wave) judge(t *testing.T) tally {
	t.Helper()
	type point struct {
		name string
		n    int
	}
	unseen := map[point]bool{} // a direct connection doesn't show it
	counts := tally{}
	for _, r := range w.runs {
		if r.direct && r.kind() == "short" {
			unseen[point{r.f.name, r.n}] = true
		}
	}
	for _, r := range w.runs {
		if r.direct {
			continue
		}
		kind := r.kind()
		switch {
		case kind == "short" && unseen[point{r.f.name, r.n}] && !w.app.cmd.ProcessState.Exited():
			kind = "short, directly too"
		case kind == "short", kind == "endless", kind == "other":
			t.Errorf("%s: %s: %d %q, %d bytes, %v", kind, r, r.status, r.code, len(r.body), r.err)
		}
		counts[kind]++
	}
	return counts
}

// kind is how the answer ended.
func (r *cutRun) kind() string {
	var timeout net.Error
	switch {
	case errors.As(r.err, &timeout) && timeout.Timeout():
		return "endless"
	case r.err != nil && r.status == 0:
		return "no answer"
	case r.err != nil && len(r.body) == 0:
		return "cut after the header"
	case r.err != nil && bytes.HasPrefix(r.f.body, r.body):
		return "cut in the body"
	case r.status == http.StatusOK && bytes.Equal(r.body, r.f.body):
		return "whole"
	case r.status == http.StatusOK:
		return "short"
	case r.status == http.StatusBadGateway && r.code != "":
		return "502"
	}
	return "other"
}
