package edge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// quic dials the server, whatever address was asked for.
func (h *https) quic(sni string) func(context.Context, string, *tls.Config, *quic.Config) (*quic.Conn, error) {
	return func(ctx context.Context, _ string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
		if sni != "" {
			config = config.Clone()
			config.ServerName = sni
		}
		return quic.DialAddr(ctx, h.tls, config, qc)
	}
}

// dialQUIC makes a connection of HTTP/3 on which the test speaks by hand.
func (h *https) dialQUIC(t *testing.T, sni string) *quic.Conn {
	t.Helper()
	c, err := h.quic(sni)(t.Context(), "", h.greeting(sni, http3.NextProtoH3), &quic.Config{KeepAlivePeriod: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseWithError(0, "") })
	return c
}

// S7 for HTTP/3: what a visitor has not sent in time is cut; a slow body is not.
func TestSlowHTTP3(t *testing.T) {
	limits := server.Config{HeaderTimeout: 500 * time.Millisecond, IdleTimeout: 500 * time.Millisecond}
	h := secure(t, limits)
	publish(t, h.plain, "demo", nil, http.HandlerFunc(framing))
	t.Run("half a header section", func(t *testing.T) {
		stream, err := h.dialQUIC(t, "demo.example.com").OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stream.Write([]byte{1, 100, 0, 0}) // HEADERS of 100 bytes, two of them
		stream.SetReadDeadline(time.Now().Add(patience))
		_, err = stream.Read(make([]byte, 1))
		var reset *quic.StreamError
		if !errors.As(err, &reset) || !reset.Remote {
			t.Errorf("it ends with %v", err)
		}
	})
	t.Run("no request", func(t *testing.T) {
		patient := limits
		patient.IdleTimeout = time.Hour
		c := secure(t, patient).dialQUIC(t, "demo.example.com")
		select {
		case <-c.Context().Done():
		case <-time.After(patience):
			t.Error("it stays open")
		}
	})
	t.Run("idle", func(t *testing.T) {
		var conns []*quic.Conn
		tr := &http3.Transport{TLSClientConfig: h.greeting("")}
		tr.Dial = func(ctx context.Context, addr string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			c, err := h.quic("")(ctx, addr, config, qc)
			conns = append(conns, c)
			return c, err
		}
		defer tr.Close()
		fetch(t, &http.Client{Transport: tr}, request(t, "GET", "https://demo.example.com:"+h.port+"/", nil))
		select {
		case <-conns[0].Context().Done():
		case <-time.After(patience):
			t.Error("it stays open")
		}
	})
	t.Run("a slow body", func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			defer w.Close()
			for range 10 {
				time.Sleep(100 * time.Millisecond) // the body's pace
				io.WriteString(w, "x")
			}
		}()
		a := fetch(t, h.client(t, "3", ""), request(t, "POST", "https://demo.example.com:"+h.port+"/", r))
		if !strings.Contains(a.body, " xxxxxxxxxx ") {
			t.Errorf("got %s", answered(a))
		}
	})
}

// S6 for HTTP/3: who takes each request back has no more under way than others, and
// others are served.
func TestResetsHTTP3(t *testing.T) {
	h := secure(t, server.Config{})
	var running, most atomic.Int64
	publish(t, h.plain, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	publish(t, h.plain, "other", nil, seen("other"))
	before := held()
	conn := h.dialQUIC(t, "demo.example.com")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	flooded, start := make(chan int), time.Now()
	go func() {
		n := 0
		var open []*quic.Stream
		for ; ctx.Err() == nil; n++ {
			stream, err := conn.OpenStreamSync(ctx)
			if err != nil {
				break
			}
			stream.Write(headers("POST", "demo.example.com", "/"))
			if open = append(open, stream); len(open) > 100 { // which have reached the app
				open[0].CancelRead(0x10c)
				open[0].CancelWrite(0x10c)
				open = open[1:]
			}
		}
		flooded <- n
	}()
	good, sent := 0, 0
	for c := h.client(t, "3", ""); sent == 0; good++ {
		if a := fetch(t, c, request(t, "GET", "https://other.example.com:"+h.port+"/", nil)); answered(a) != "other" {
			t.Fatalf("another visitor got %s", answered(a))
		}
		select {
		case sent = <-flooded:
		default:
		}
	}
	if n := most.Load(); n > 250 {
		t.Errorf("%d requests ran at once", n)
	}
	// Of those that were taken back 250 are free, and 62 a second; 250 can have begun
	// that nobody has looked at, and as many streams wait to be accepted.
	if free := 250 + 250 + 250 + int(time.Since(start).Seconds()*250/4); sent > free {
		t.Errorf("%d requests were begun, want %d at most", sent, free)
	}
	if grown := int64(held()-before) >> 20; grown > 64 {
		t.Errorf("%d MB more are held", grown)
	}
	t.Logf("%d requests, %d at once, %d good ones beside them", sent, most.Load(), good)
}

// S6 for HTTP/3: who takes requests back, which lets it begin others, has no more
// under way than others as long as those are not done with.
func TestCapHTTP3(t *testing.T) {
	var started atomic.Int64
	release := make(chan struct{})
	h := &edge.HTTP{Domain: "example.com", Own: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/other" {
			started.Add(1)
			io.Copy(io.Discard, r.Body) // until it is taken back
			w.Write(make([]byte, 64<<10))
			<-release
		}
	})}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate := rig.NewCertificate(t, "example.com")
	q, err := h.HTTP3(packets, certificate.Get, edge.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- q.Serve() }()
	defer func() { close(release); q.Close(); <-served }()
	of := &https{tls: packets.LocalAddr().String(), config: &tls.Config{RootCAs: certificate.Roots}}
	conn := of.dialQUIC(t, "example.com")
	const most = 250
	for i := range int64(most + 20) {
		opening, cancel := context.WithTimeout(t.Context(), patience)
		stream, err := conn.OpenStreamSync(opening)
		cancel()
		if err != nil {
			t.Fatal(i, err)
		}
		stream.Write(headers("POST", "example.com", "/"))
		if i < most {
			poll.Until(t, "a request begins", func() bool { return started.Load() > i })
			stream.CancelRead(0x10c)
			stream.CancelWrite(0x10c)
		}
	}
	for range 10 { // somebody else is served meanwhile
		fetch(t, of.client(t, "3", "example.com"), request(t, "GET", "https://example.com/other", nil))
	}
	if n := started.Load(); n != most {
		t.Errorf("%d requests run at once, want %d", n, most)
	}
}

// headers is a HEADERS frame (RFC 9114, section 7.2.2).
func headers(method, host, path string) []byte {
	var block bytes.Buffer
	encoder := qpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", host}, {":path", path}} {
		encoder.WriteField(qpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return append([]byte{1, 0x40 | byte(block.Len()>>8), byte(block.Len())}, block.Bytes()...)
}

// What HTTP/1.1 could not carry does not reach the app, as a request within it.
func TestInvalidHTTP3(t *testing.T) {
	h := secure(t, server.Config{})
	publish(t, h.plain, "demo", nil, seen("demo"))
	c := h.client(t, "3", "")
	stream, err := h.dialQUIC(t, "demo.example.com").OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Write(headers("GET", "demo.example.com", "/a HTTP/1.1"))
	stream.Close()
	stream.SetReadDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(stream); !bytes.Contains(b, []byte("bad_request")) {
		t.Errorf("a target with a space: %q, %v", b, err)
	}
	long := request(t, "GET", "https://demo.example.com:"+h.port+"/", nil)
	long.Header.Set("Long", strings.Repeat("x", 70<<10))
	if a := fetch(t, c, long); a.StatusCode != 431 || a.code() != "headers_too_large" {
		t.Errorf("a long header: %s", answered(a))
	}
}

// R6 for HTTP/3: what is under way when the server drains finishes.
func TestDrainHTTP3(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	certificate := rig.NewCertificate(t, "demo.example.com")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := server.New(server.Config{
		Listen: "127.0.0.1:0", Domain: "example.com", Auth: anybody(), Grace: patience,
		TLS: &server.TLS{Listen: "127.0.0.1:0", GetCertificate: certificate.Get},
	})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- s.Run(ctx) }()
	publish(t, s.Addr().String(), "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		close(begun)
		<-release
		io.WriteString(w, "whole")
	}))
	h := &https{Server: s, tls: s.TLSAddr().String(), config: &tls.Config{RootCAs: certificate.Roots}}
	got := make(chan string, 1)
	go func() {
		res, err := h.client(t, "3", "").Get("https://demo.example.com/")
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		got <- fmt.Sprint(string(body), err)
	}()
	<-begun
	cancel()
	// It is draining when it takes no more.
	poll.Until(t, "draining", func() bool {
		dialing, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		c, err := h.quic("demo.example.com")(dialing, "", h.greeting("demo.example.com", "h3"), nil)
		if err == nil {
			c.CloseWithError(0, "")
		}
		return err != nil
	})
	close(release)
	if b := <-got; b != "whole<nil>" {
		t.Errorf("got %s", b)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}
