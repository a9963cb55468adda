package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// maxWaiting bounds the app's datagrams that wait for the tunnel, of all visitors
	// together, in bytes.
	maxWaiting = 32 << 20
	// maxDatagram is what a buffer for one has room for, in bytes.
	maxDatagram = 64 << 10
	// appBuffer is what the kernel may hold of the app's datagrams for a visitor, in bytes, where it
	// lets it be: a burst, or what comes while this process does not get to run. By default it is a
	// fifth of that, which is 9 ms of 10,000 datagrams a second.
	appBuffer = 1 << 20
	// maxFailures is after how many failed reads in a row a socket is given up.
	maxFailures = 1000
	// warnPause is how seldom the log says that the app refuses datagrams.
	warnPause = time.Minute
)

// errNotUDP is of a request to an endpoint of datagrams.
var errNotUDP = errors.New("request does not ask for connect-udp")

// UDP passes visitors' datagrams on to the local app, from a socket for each visitor,
// and the answers back. Make it with [NewUDP].
//
// Nothing waits for long: what the tunnel does not take is dropped once 256 KiB of a
// visitor's answers wait, or 32 MiB of all. That the app's port is closed (ICMP) drops
// a datagram and ends nothing, as the app may be starting.
type UDP struct {
	target   Target
	o        UDPOptions
	server   proxy.Server
	budget   capsule.Budget
	inFlight atomic.Int64
	start    time.Time
	warned   atomic.Int64 // when the log last said that the app refuses, in nanoseconds since start; 0: never
	dropped  atomic.Int64
}

// UDPOptions tune a UDP.
type UDPOptions struct {
	// Idle is how long nothing may come from visitor and app until the visitor's
	// socket is closed. 0: as long as the server keeps the visitor.
	Idle time.Duration
	// Done is called after each visitor. May be nil.
	Done func(Exchange)
	// Log gets why datagrams were not delivered. Nil discards.
	Log *slog.Logger
}

// NewUDP returns the handler for target.
func NewUDP(target Target, o UDPOptions) *UDP {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &UDP{target: target, o: o, start: time.Now(), budget: capsule.Budget{Max: maxWaiting}}
	f.server = proxy.Server{Handler: f.ServeHTTP, MaxHeader: maxHeader, Log: o.Log}
	return f
}

// Close does nothing: sockets end with their streams.
func (f *UDP) Close() {}

// InFlight is how many visitors there are.
func (f *UDP) InFlight() int64 { return f.inFlight.Load() }

// Dropped is how many datagrams were dropped, in either direction.
func (f *UDP) Dropped() int64 { return f.dropped.Load() }

// ServeConn serves one stream of the tunnel until it ends, and closes it.
func (f *UDP) ServeConn(stream net.Conn) { f.server.ServeConn(stream) }

// ServeHTTP answers an upgrade to connect-udp (RFC 9298, section 3), whatever its
// target: what is called is the user's to say (S18).
func (f *UDP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.inFlight.Add(1)
	defer f.inFlight.Add(-1)
	e := Exchange{Method: "UDP", Path: visitorOf(r)}
	start := time.Now()
	e.Code = f.serve(w, r, &e)
	e.Duration = time.Since(start)
	if f.o.Done != nil {
		f.o.Done(e)
	}
}

func (f *UDP) serve(w http.ResponseWriter, r *http.Request, e *Exchange) protocol.Code {
	if r.Method != http.MethodGet || !strings.EqualFold(r.Header.Get("Upgrade"), protocol.UpgradeUDP) {
		return f.refuse(w, r, protocol.BadRequest, errNotUDP)
	}
	app, err := f.dial(r.Context())
	if err != nil {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // the visitor has gone
		}
		return f.refuse(w, r, codeOf(err), err)
	}
	stream, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		app.Close()
		panic(http.ErrAbortHandler)
	}
	buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol.UpgradeUDP + "\r\nCapsule-Protocol: ?1\r\n\r\n")
	if buffered.Flush() != nil {
		app.Close()
		stream.Close()
		return protocol.SessionLost
	}
	e.Status = http.StatusSwitchingProtocols
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	one := &flow{f: f, visitor: e.Path, app: app, stream: stream, queue: capsule.NewQueue(&f.budget)}
	one.run(io.MultiReader(bytes.NewReader(bytes.Clone(early)), stream))
	e.Bytes = one.bytes.Load()
	return ""
}

func (f *UDP) dial(ctx context.Context) (*net.UDPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	app, err := (&net.Dialer{}).DialContext(ctx, "udp", f.target.Addr)
	if err != nil {
		return nil, err
	}
	socket := app.(*net.UDPConn)
	socket.SetReadBuffer(appBuffer)
	return socket, nil
}

func (f *UDP) refuse(w http.ResponseWriter, r *http.Request, code protocol.Code, err error) protocol.Code {
	f.o.Log.Warn("visitor refused", "visitor", visitorOf(r), "target", f.target.Addr, "code", string(code), "err", err)
	w.Header().Set(protocol.HeaderError, string(code))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(code.Status())
	return code
}

// lost counts a datagram that the app did not take, and says so now and then.
func (f *UDP) lost(err error) {
	f.dropped.Add(1)
	now := int64(time.Since(f.start))
	if last := f.warned.Load(); (last == 0 || now-last >= int64(warnPause)) && f.warned.CompareAndSwap(last, now) {
		f.o.Log.Warn("the local app does not take datagrams: is it running?", "target", f.target.String(), "dropped", f.dropped.Load(), "err", err)
	}
}

// flow is one visitor.
type flow struct {
	f       *UDP
	visitor string
	app     *net.UDPConn
	stream  net.Conn
	queue   *capsule.Queue // what the app sent
	active  atomic.Int64   // when a datagram last came, in nanoseconds since the UDP's start
	bytes   atomic.Int64   // from the app
	dropped atomic.Int64   // for want of room
}

// run passes datagrams on until the stream ends or nothing came for long. in is what
// the stream brings.
func (o *flow) run(in io.Reader) {
	o.seen()
	var tasks sync.WaitGroup
	tasks.Go(func() { o.queue.Run(o.stream) }) // where it fails, receive sees it, too
	tasks.Go(func() {
		defer o.end()
		o.answer()
	})
	err := o.receive(in)
	o.end()
	tasks.Wait()
	o.f.dropped.Add(o.dropped.Load())
	o.f.o.Log.Debug("visitor's datagrams ended", "visitor", o.visitor, "dropped", o.dropped.Load(), "err", err)
}

// end is called once by each direction. An abort: there is nothing that would be
// complete.
func (o *flow) end() {
	o.app.Close()
	o.queue.Close()
	if s, ok := o.stream.(interface{ Reset() error }); ok {
		s.Reset()
	}
	o.stream.Close()
}

func (o *flow) seen() { o.active.Store(int64(time.Since(o.f.start))) }

func (o *flow) last() time.Time { return o.f.start.Add(time.Duration(o.active.Load())) }

// receive gives the app what the visitor sends.
func (o *flow) receive(in io.Reader) error {
	return capsule.Receive(in, &o.f.budget, func(b []byte) error {
		o.seen()
		return o.send(b)
	}, func() { o.dropped.Add(1) })
}

// datagrams are the buffers for what the app sends.
var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// send fails only where the socket is closed: anything else is a datagram lost.
func (o *flow) send(b []byte) error {
	_, err := o.app.Write(b)
	if errors.Is(err, syscall.ECONNREFUSED) {
		_, err = o.app.Write(b) // that was what became of the one before, and this one was not sent
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		o.f.lost(err)
		return nil
	}
	return err
}

// answer takes what the app sends until the socket is closed, or was idle.
func (o *flow) answer() {
	in, err := newIncoming(o.app)
	for failures := 0; err == nil && failures < maxFailures; {
		if idle := o.f.o.Idle; idle > 0 {
			o.app.SetReadDeadline(o.last().Add(idle))
		}
		var buf *[maxDatagram]byte
		var n int
		buf, n, err = in.next()
		switch {
		case err == nil:
			failures = 0
			o.seen()
			o.bytes.Add(int64(n))
			if !o.queue.Put(buf[:n]) {
				o.dropped.Add(1)
			}
			datagrams.Put(buf)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(o.last()) < o.f.o.Idle {
				err = nil
			}
		case !errors.Is(err, net.ErrClosed):
			o.f.lost(fmt.Errorf("%s: %w", o.f.target.Addr, err)) // ICMP: what it answers to is gone
			failures++
			err = nil
		}
	}
}
