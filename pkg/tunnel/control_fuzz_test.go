package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// fuzzTime is far beyond what a session of the fuzzer takes.
const fuzzTime = 20 * time.Second

// FuzzControl lets a server write anything to the control stream: the client gets
// the name that was granted, or says what the server said; what is no message is
// never taken for the server's word, which may be final (R29).
func FuzzControl(f *testing.F) {
	for _, in := range serverSeeds() {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), fuzzTime)
		defer cancel()
		m, stop := scriptedServer(t, in)
		defer stop()
		defer context.AfterFunc(ctx, func() { m.Close() })()
		s := newSession()
		s.conduit, s.mux = m, m
		want := expectedOf(in)
		resume, err := s.handshake(ctx, &protocol.Hello{Versions: []int{protocol.Version}}, &protocol.Bind{ID: 1, Name: "demo"})
		if resume != want.resume || (err == nil) != (want.bound != nil) {
			t.Fatalf("%q: handshake gave %q, %v; want %+v", in, resume, err, want)
		}
		if err == nil {
			if s.name != want.bound.Name || s.url != want.bound.URL {
				t.Errorf("%q: the name is %q at %q, want %+v", in, s.name, s.url, want.bound)
			}
			go s.readControl()
			err = s.err()
			if isClosed(s.draining) != want.drain || isClosed(s.drained) != want.drained {
				t.Errorf("%q: drain %v, drained %v; want %+v", in, isClosed(s.draining), isClosed(s.drained), want)
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("%q: took %v", in, fuzzTime)
		}
		var said *protocol.Error
		if !errors.As(err, &said) {
			said = nil
		}
		if !reflect.DeepEqual(said, want.said) {
			t.Errorf("%q: the error is %v, want the server's %v", in, err, want.said)
		}
	})
}

// scriptedServer is a session with a server that writes in to the control stream,
// and ends it.
func scriptedServer(t *testing.T, in []byte) (m mux.Session, stop func()) {
	t.Helper()
	a, b := net.Pipe()
	m, err := mux.Client(a, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := mux.Server(b, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		control, err := server.Accept()
		if err != nil {
			return
		}
		go func() {
			control.Write(in)
			control.CloseWrite()
		}()
		io.Copy(io.Discard, control)
	}()
	return m, func() {
		m.Close()
		server.Close()
		<-done
	}
}

// expected is what a client is to make of a control stream.
type expected struct {
	resume         string
	bound          *protocol.Bound // nil: the handshake fails
	drain, drained bool
	said           *protocol.Error // that the server ended it with; nil: it did not
}

func expectedOf(in []byte) (e expected) {
	r := bytes.NewReader(in)
	welcomed := false
	for {
		m, err := protocol.Read(r)
		switch {
		case err != nil:
			return e
		case m.Bye != nil && (e.bound == nil || !drains(m, &e)):
			e.said = m.Bye.Error
			return e
		case e.bound != nil:
			drains(m, &e)
		case !welcomed && m.Welcome != nil:
			if m.Welcome.Version != protocol.Version {
				e.said = badVersion(m.Welcome.Version)
				return e
			}
			welcomed, e.resume = true, m.Welcome.Resume
		case welcomed && m.Bound != nil:
			if m.Bound.Error != nil {
				e.said = m.Bound.Error
				return e
			}
			e.bound = m.Bound
		}
	}
}

// drains notes what m says of draining, and reports whether it is news: of a
// message that is several, one counts.
func drains(m *protocol.Message, e *expected) bool {
	switch {
	case m.Drain != nil && !e.drain:
		e.drain = true
	case m.Drained != nil && !e.drained:
		e.drained = true
	default:
		return false
	}
	return true
}

func serverSeeds() (seeds []string) {
	const welcome, bound = `{"welcome":{"version":1,"resume":"secret"}}`, `{"bound":{"id":1,"name":"demo","url":"http://demo.example.com"}}`
	for _, bodies := range [][]string{
		{}, {welcome}, {welcome, bound}, {welcome, `{"news":1}`, bound, `{}`}, {bound, welcome, welcome}, {welcome, bound, `{"drain":{}}`, `{"drain":{}}`, `{"drained":{}}`},
		{welcome, `{"bound":{"id":1,"error":{"code":"name_taken","message":"taken"}}}`}, {`{"bye":{"error":{"code":"session_taken","message":"m"}}}`}, {welcome, `{"bye":{}}`},
		{welcome, bound, `{"bye":{"error":{"code":"token_revoked","message":"m","hint":"h"}}}`}, {welcome, bound, `{"bye":{}}`, bound}, {welcome, bound, `{`},
		{`{"welcome":{"version":2,"resume":"secret"}}`, bound}, {`{"welcome":null}`, `{"welcome":{}}`}, {`{"welcome":[]}`}, {welcome, bound, `{"drain":{},"bye":{"error":null}}`},
	} {
		var all strings.Builder
		for _, body := range bodies {
			all.Write(binary.BigEndian.AppendUint32(nil, uint32(len(body))))
			all.WriteString(body)
		}
		seeds = append(seeds, all.String())
	}
	return append(seeds, "\xff\xff\xff\xff", "\x00\x00", seeds[2]+"\xff\xff\xff\xff", seeds[2]+"\x00", seeds[1]+"\x00\x00\x00\x02[]")
}
