package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/pace"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// shedInterval is how often a Gate looks at the memory by itself.
	shedInterval = 50 * time.Millisecond
	// shortHead is how much of a header is read in any case, in bytes, so that most
	// visitors are told 503; readPause is how long the next part waits where memory is
	// tight.
	shortHead = 4 << 10
	readPause = 100 * time.Millisecond
	// newGrace is how long a new connection may be silent where memory is tight.
	newGrace = 250 * time.Millisecond
	// idleGrace is how long a connection is left idle where descriptors are lacking.
	idleGrace = time.Second
	// cutPart is the part of the visitors' connections that is cut off at once, and
	// cutPause how long it is seen whether that was enough.
	cutPart  = 8
	cutPause = 200 * time.Millisecond

	// tightPause and brimPause are how long a connection waits before it is accepted
	// where memory is tight, and at the brim. No longer: the memory need not be the
	// visitors', and who waits is to hear of it.
	tightPause, brimPause = 10 * time.Millisecond, 250 * time.Millisecond
	// minBackOff and maxBackOff are how long it waits where descriptors are lacking.
	minBackOff, maxBackOff = 5 * time.Millisecond, 500 * time.Millisecond

	// calmTime is after how long without trouble it is over.
	calmTime = 5 * time.Second
)

// Gate keeps what visitors make the server hold below its limits of memory and
// descriptors, and the server alive where there are too many of them. New
// requests get 503 when the memory is full; new connections wait and idle ones
// end when it is tight; connections are cut off, some at a time, when it is at
// the brim. Where descriptors are lacking, new connections wait and idle ones
// end.
//
// A nil Gate lets everything in. It needs to be told of connections by
// [Gate.Listener] and [Gate.Follow], and to [Gate.Run].
type Gate struct {
	// Memory is the limit. Nil: none.
	Memory *pace.Memory
	// Log gets a line when a trouble begins and one when it is over. Nil discards.
	Log *slog.Logger

	// Unread is what streams hold that visitors have not read. Where it is used up,
	// the streams themselves are cut off; the Gate only says so. Nil: not bounded.
	Unread *mux.Budget

	mu     sync.Mutex // guards the following fields
	conns  map[*admitted]struct{}
	others []shedder

	refused, closed, cut atomic.Int64 // requests, and connections, in this trouble
	lacking              atomic.Int64 // accepts that failed

	// The rest is Run's alone.
	memory, descriptors, unread trouble
	seen, resets                int64 // refused, and those of Unread, when last looked
	lastCut                     time.Time
}

// full reports whether a request is to be refused, and counts it.
func (g *Gate) full() bool {
	if g == nil || !g.Memory.Full() {
		return false
	}
	g.refused.Add(1)
	return true
}

// shed tells a visitor that memory is full. Its connection is memory, too.
func (h *HTTP) shed(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 3 { // RFC 9114, section 4.2
		w.Header().Set("Connection", "close")
	}
	h.fail(w, r, protocol.Overloaded)
}

// Follow is for http.Server.ConnState. Connections that were hijacked are not
// the visitors' any more.
func (g *Gate) Follow(c net.Conn, state http.ConnState) {
	a := entryOf(c)
	if a == nil {
		return
	}
	a.since.Store(int64(time.Since(a.start)))
	a.head.Store(0)
	a.state.Store(int32(state))
	if state == http.StateHijacked || state == http.StateClosed {
		g.forget(a)
	}
}

// entryOf returns what a Gate knows of c, or nil.
func entryOf(c net.Conn) *admitted {
	switch c := c.(type) {
	case *admitted:
		return c
	case *timedConn:
		return c.entry
	}
	return nil
}

// isHijacked reports whether net/http has handed a over.
func (a *admitted) isHijacked() bool {
	return a != nil && http.ConnState(a.state.Load()) == http.StateHijacked
}

func (g *Gate) forget(a *admitted) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, a)
}

// in returns the connections that match accepts.
func (g *Gate) in(match func(state http.ConnState, age time.Duration) bool) []*admitted {
	var found []*admitted
	g.mu.Lock()
	defer g.mu.Unlock()
	for a := range g.conns {
		if match(http.ConnState(a.state.Load()), a.age()) {
			found = append(found, a)
		}
	}
	return found
}

// Run looks after the connections until ctx ends.
func (g *Gate) Run(ctx context.Context) {
	t := time.NewTicker(shedInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			g.step(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gate) step(now time.Time) {
	level := g.Memory.Level()
	g.tell(level, now)
	if level >= pace.Tight {
		g.closeWaiting(0, newGrace)
	}
	if level < pace.Full {
		return
	}
	g.Memory.Refresh()
	if g.Memory.Level() < pace.Brim || now.Sub(g.lastCut) < cutPause {
		return
	}
	g.Memory.Refresh() // what was in a sync.Pool takes two collections
	if g.Memory.Level() >= pace.Brim {
		g.lastCut = now
		g.cutSome()
	}
}

// tell logs what began and what is over.
func (g *Gate) tell(level pace.Level, now time.Time) {
	refused := g.refused.Load()
	switch began, over := g.memory.step(level >= pace.Full || refused != g.seen, now); {
	case began:
		g.log().Warn("memory is full: new requests and sessions get 503", "used", g.Memory.Used(), "limit", g.Memory.Limit, "unread", g.Unread.Used())
	case over:
		g.log().Info("memory is not full any more", "refused", refused, "closed", g.closed.Swap(0), "cut", g.cut.Swap(0))
		g.refused.Add(-refused)
		refused = 0
	}
	g.seen = refused
	switch began, over := g.descriptors.step(g.lacking.Swap(0) > 0, now); {
	case began:
		g.log().Warn("out of descriptors: new connections wait; raise the limit (ulimit -n)")
	case over:
		g.log().Info("descriptors suffice again")
	}
	resets := g.Unread.Resets()
	switch began, over := g.unread.step(resets > g.resets, now); {
	case began:
		g.log().Warn("visitors read too slowly: the answers that wait most are cut off", "unread", g.Unread.Used(), "limit", g.Unread.Limit())
	case over:
		g.log().Info("visitors do not read too slowly any more", "cut", resets)
	}
	g.resets = resets
}

// closeWaiting closes the connections on which no request is under way: those
// that have been idle, or new, for so long. What they hold of a header that is
// still to be completed is most of what one without a request can hold.
func (g *Gate) closeWaiting(idle, fresh time.Duration) {
	for _, a := range g.in(func(state http.ConnState, age time.Duration) bool {
		return state == http.StateIdle && age >= idle || state == http.StateNew && age >= fresh
	}) {
		g.forget(a)
		g.closed.Add(1)
		a.Close()
	}
}

// cutSome cuts off connections with requests under way, arbitrary ones. Their
// visitors see an error: a reset, never an end (R1).
func (g *Gate) cutSome() {
	active := g.in(func(state http.ConnState, _ time.Duration) bool { return state == http.StateActive })
	for _, a := range active[:(len(active)+cutPart-1)/cutPart] {
		g.forget(a)
		g.cut.Add(1)
		a.SetLinger(0)
		a.Close()
	}
	g.mu.Lock()
	others := g.others
	g.mu.Unlock()
	for _, o := range others {
		g.cut.Add(int64(o.shed(cutPart)))
	}
}

// shedder has connections that no [Gate.Listener] accepted. shed cuts off one of
// part of them, and says how many that were.
type shedder interface{ shed(part int) int }

// also has o's connections cut off, too.
func (g *Gate) also(o shedder) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.others = append(g.others, o)
}

func (g *Gate) log() *slog.Logger {
	if g.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return g.Log
}

// trouble tells begin and end of what comes and goes all the time.
type trouble struct {
	on   bool
	last time.Time
}

func (t *trouble) step(now bool, at time.Time) (began, over bool) {
	switch {
	case now:
		began = !t.on
		t.on, t.last = true, at
	case t.on && at.Sub(t.last) >= calmTime:
		t.on, over = false, true
	}
	return began, over
}

// Listener returns l, from which connections come more slowly where memory is
// tight or descriptors are lacking. Its Accept returns no error that passes.
func (g *Gate) Listener(l net.Listener) net.Listener {
	return &gated{Listener: l, gate: g, done: make(chan struct{})}
}

type gated struct {
	net.Listener
	gate *Gate
	once sync.Once
	done chan struct{} // closed with the listener
}

func (l *gated) Accept() (net.Conn, error) {
	switch l.gate.Memory.Level() {
	case pace.Tight:
		l.pause(tightPause)
	case pace.Brim:
		l.pause(brimPause)
	}
	for wait := minBackOff; ; wait = min(2*wait, maxBackOff) {
		c, err := l.Listener.Accept()
		if !lacksDescriptors(err) {
			return l.gate.admit(c), err
		}
		l.gate.lacking.Add(1)
		l.gate.closeWaiting(idleGrace, time.Hour)
		l.pause(wait)
	}
}

// pause waits, but not for a listener that is closed.
func (l *gated) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.done:
	}
}

// Close closes the listener; an Accept that waits returns.
func (l *gated) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// tcpConn is what a TCP connection has, and what wraps one.
type tcpConn interface {
	net.Conn
	io.ReaderFrom
	io.WriterTo
	syscall.Conn
	CloseWrite() error
	SetLinger(seconds int) error
}

// wrapper leaves to a connection what the type that wraps it does not do itself.
type wrapper struct{ tcpConn }

// NetConn returns the connection below, for its options only.
func (w wrapper) NetConn() net.Conn { return w.tcpConn }

// admitted is a visitor's connection.
type admitted struct {
	wrapper
	gate  *Gate
	state atomic.Int32 // an http.ConnState
	since atomic.Int64 // when it began, in nanoseconds since the connection's start
	start time.Time
	head  atomic.Int64 // bytes of a header that came since
}

// admit returns what follows c. It knows TCP connections only.
func (g *Gate) admit(c net.Conn) net.Conn {
	tcp, ok := c.(tcpConn)
	if !ok {
		return c
	}
	a := &admitted{wrapper: wrapper{tcp}, gate: g, start: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		g.conns = make(map[*admitted]struct{})
	}
	g.conns[a] = struct{}{}
	return a
}

// Close closes the connection. One that fails before net/http has it is not
// followed to its end.
func (a *admitted) Close() error {
	a.gate.forget(a)
	return a.tcpConn.Close()
}

// age is how long it has been in its state.
func (a *admitted) age() time.Duration { return time.Since(a.start) - time.Duration(a.since.Load()) }

var errShed = errors.New("memory is full")

// Read lets long headers come slowly where memory is tight, and not at all at the
// brim. Requests that are under way, and upgraded connections, are read as ever.
func (a *admitted) Read(p []byte) (int, error) {
	n, err := a.tcpConn.Read(p)
	if state := http.ConnState(a.state.Load()); n == 0 || state != http.StateNew && state != http.StateIdle {
		return n, err
	}
	if a.head.Add(int64(n)) <= shortHead {
		return n, err
	}
	switch a.gate.Memory.Level() {
	case pace.Tight:
		time.Sleep(readPause)
	case pace.Brim:
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: errShed} // net/http would answer another
	}
	return n, err
}

func lacksDescriptors(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}
