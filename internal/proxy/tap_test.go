package proxy

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// tapped is a ResponseWriter whose connection, when it is taken over, is a Tap.
type tapped struct{ http.ResponseWriter }

func (w tapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w tapped) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	tap := &Tap{Conn: conn, Came: func([]byte) {}, Goes: func([]byte) {}}
	rw.Writer.Reset(tap)
	return tap, rw, nil
}

// twoHopsTapped is twoHopsServed with somebody who looks on at its end.
func twoHopsTapped(t testing.TB, app string) *path {
	return hopsOn(t, app, func(t testing.TB, l net.Listener, h http.Handler) {
		serveConns(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(tapped{w}, r) }))
	})
}

// A Tap sees what passes, and what is written before the peer can answer it.
func TestTap(t *testing.T) {
	a, b := pair(t)
	var seen []byte
	tap := &Tap{Conn: a, Came: func(p []byte) { seen = append(seen, p...) }, Goes: func(p []byte) { seen = append(seen, p...) }}
	go func() {
		buf := make([]byte, 2)
		b.Read(buf)
		b.Write([]byte("re"))
	}()
	tap.Write([]byte("as"))
	tap.Read(make([]byte, 2))
	if string(seen) != "asre" {
		t.Errorf("seen is %q", seen)
	}
	told := false
	(&Tap{Conn: abortable{a}}).OnAbort(func() { told = true })
	if !told {
		t.Error("nothing is told of an abort")
	}
	below := lingers(a)
	(&Tap{Conn: secure{a, below}}).SetLinger(0)
	if below.seconds.Load() != 0 {
		t.Error("the connection below TLS would end where it is to be aborted")
	}
}

// secure is a connection with another below.
type secure struct {
	net.Conn
	below net.Conn
}

func (s secure) NetConn() net.Conn { return s.below }

// lingering remembers what SetLinger was told.
type lingering struct {
	net.Conn
	seconds atomic.Int64 // a splice aborts from another goroutine
}

// lingers is conn that was told nothing so far.
func lingers(conn net.Conn) *lingering {
	l := &lingering{Conn: conn}
	l.seconds.Store(-1)
	return l
}

func (l *lingering) SetLinger(seconds int) error {
	l.seconds.Store(int64(seconds))
	return nil
}

// abortable is a connection that is aborted as soon as somebody wants to know.
type abortable struct{ net.Conn }

func (abortable) OnAbort(f func()) func() bool {
	f()
	return func() bool { return false }
}
