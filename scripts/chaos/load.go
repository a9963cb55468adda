package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// A source is one kind of load.
type source struct {
	name string
	rate float64 // requests a second
	way  way
	to   string // the tunnel; "": one for HTTP
	ask  func(r *rand.Rand) rig.Ask
}

// A way is how a source's visitors connect.
type way int

const (
	kept         way = iota // HTTP/1.1, connections are used again
	fresh                   // HTTP/1.1, a connection for each request
	old                     // HTTP/1.0
	second                  // HTTP/2 without TLS
	secure                  // HTTP/1.1 over TLS
	freshSecure             // the same, a connection for each request
	secondSecure            // HTTP/2 over TLS
	third                   // HTTP/3
	freshThird              // HTTP/3, a connection for each request
	port                    // TCP, to a port of the server
	through                 // TLS that ends at the app
	private                 // TCP, to the client that reaches a private endpoint
	once                    // UDP, a socket for each ask
	again                   // UDP, one socket
)

func (w way) String() string {
	return [...]string{"HTTP/1.1", "new connection", "HTTP/1.0", "HTTP/2", "TLS", "TLS, new connection", "HTTP/2 over TLS",
		"HTTP/3", "HTTP/3, new connection", "port", "TLS to the app", "private", "UDP, new socket", "UDP, old socket"}[w]
}

// between draws from [low, high), more often a small one.
func between(r *rand.Rand, low, high int64) int64 {
	return low + int64(float64(high-low)*r.Float64()*r.Float64())
}

// paced is a body that takes about half a second to two.
func paced(r *rand.Rand, kind rig.Kind, low, high int64) rig.Ask {
	return rig.Ask{Kind: kind, Size: between(r, low, high), Pieces: 10 + r.IntN(20), Pause: time.Duration(20+r.IntN(60)) * time.Millisecond}
}

func sources() []source {
	small := func(k rig.Kind) func(*rand.Rand) rig.Ask {
		return func(r *rand.Rand) rig.Ask { return rig.Ask{Kind: k, Size: between(r, 0, 30_000)} }
	}
	return []source{
		{name: "GET", rate: 30, way: kept, ask: small(rig.Length)},
		{name: "GET, new connection", rate: 6, way: fresh, ask: small(rig.Chunked)},
		{name: "GET, HTTP/2", rate: 12, way: second, ask: small(rig.Chunked)},
		{name: "GET, HTTP/1.0", rate: 4, way: old, ask: small(rig.Length)},
		{name: "POST", rate: 30, way: kept, ask: func(r *rand.Rand) rig.Ask {
			return rig.Ask{Kind: rig.Post, Size: between(r, 0, 30_000), Unsized: r.IntN(2) == 0}
		}},
		// Those of which the app has all when a fault comes: none may be sent again (R5).
		{name: "POST, slow app", rate: 12, way: kept, ask: func(r *rand.Rand) rig.Ask {
			return rig.Ask{Kind: rig.Post, Size: between(r, 0, 2) * 1000, Think: time.Duration(300+r.IntN(1200)) * time.Millisecond}
		}},
		{name: "POST, HTTP/2", rate: 8, way: second, ask: small(rig.Post)},
		{name: "upload", rate: 2, way: kept, ask: func(r *rand.Rand) rig.Ask {
			a := paced(r, rig.Post, 200_000, 3_000_000)
			a.Unsized = r.IntN(2) == 0
			return a
		}},
		{name: "download, length", rate: 2, way: kept, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Length, 200_000, 4_000_000) }},
		{name: "download, chunked", rate: 2, way: kept, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Chunked, 200_000, 4_000_000) }},
		{name: "download, until close", rate: 2, way: fresh, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Close, 20_000, 2_000_000) }},
		{name: "download, HTTP/1.0", rate: 2, way: old, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.HTTP10, 20_000, 2_000_000) }},
		{name: "download, HTTP/2", rate: 2, way: second, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Close, 20_000, 2_000_000) }},
		{name: "server-sent events", rate: 2, way: kept, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.SSE, 10, 200) }},
		{name: "WebSocket", rate: 2, way: fresh, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.WebSocket, 10, 20_000) }},
		{name: "gRPC", rate: 14, to: grpcName, ask: small(rig.Unary)},
		{name: "gRPC stream", rate: 3, to: grpcName, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Stream, 10, 20_000) }},
		{name: "GET, TLS", rate: 8, way: secure, ask: small(rig.Length)},
		{name: "GET, TLS, new connection", rate: 2, way: freshSecure, ask: small(rig.Chunked)},
		{name: "POST, HTTP/2 over TLS", rate: 6, way: secondSecure, ask: small(rig.Post)},
		{name: "download, HTTP/2 over TLS", rate: 1, way: secondSecure, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Chunked, 20_000, 2_000_000) }},
		{name: "WebSocket, TLS", rate: 1, way: freshSecure, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.WebSocket, 10, 20_000) }},
		{name: "gRPC, TLS", rate: 3, way: secure, to: grpcName, ask: small(rig.Unary)},
		{name: "GET, HTTP/3", rate: 6, way: third, ask: small(rig.Chunked)},
		{name: "GET, HTTP/3, new connection", rate: 1, way: freshThird, ask: small(rig.Length)},
		{name: "POST, HTTP/3", rate: 4, way: third, ask: small(rig.Post)},
		{name: "download, HTTP/3", rate: 1, way: third, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Length, 20_000, 2_000_000) }},
		{name: "TCP", rate: 8, way: port, to: portName, ask: small(rig.Raw)},
		{name: "TCP, long", rate: 2, way: port, to: portName, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Raw, 20_000, 2_000_000) }},
		{name: "TLS to the app", rate: 4, way: through, to: sealedName, ask: small(rig.Raw)},
		{name: "TLS to the app, long", rate: 1, way: through, to: sealedName, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Raw, 20_000, 2_000_000) }},
		{name: "private", rate: 4, way: private, to: privateName, ask: small(rig.Raw)},
		{name: "private, long", rate: 1, way: private, to: privateName, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Raw, 20_000, 2_000_000) }},
		{name: "UDP", rate: 4, way: once, to: udpName, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Datagrams, 0, 1_400) }},
		{name: "UDP, large", rate: 1, way: once, to: udpName, ask: func(r *rand.Rand) rig.Ask { return paced(r, rig.Datagrams, 0, 30_000) }},
	}
}

// atOnce bounds what a source has under way: while a fault makes requests wait, no more are sent.
const atOnce = 64

// A load sends requests until its context ends, and keeps what became of them.
type load struct {
	lab     *lab
	sources []source
	stop    func()
	sending sync.WaitGroup

	mu      sync.Mutex
	results []rig.Result // guarded by mu
	labels  map[string]int
}

// startLoad starts one goroutine for each source.
func (l *lab) startLoad(ctx context.Context) *load {
	sending, stop := context.WithCancel(ctx)
	d := &load{lab: l, sources: sources(), stop: stop, labels: make(map[string]int)}
	for i := range d.sources {
		d.sending.Go(func() { d.send(sending, ctx, i) })
	}
	return d
}

// send sends requests of one source until sending ends; those under way go on until they end, or ctx.
func (d *load) send(sending, ctx context.Context, index int) {
	s := d.sources[index]
	r := rand.New(rand.NewPCG(d.lab.seed, uint64(index)))
	var visitors []*rig.Visitor
	names := web()
	if s.to != "" {
		names = []string{s.to}
	}
	for _, name := range names {
		visitors = append(visitors, d.lab.visitor(name, s.way))
	}
	var under sync.WaitGroup
	defer func() {
		under.Wait()
		for _, v := range visitors {
			v.Close()
		}
	}()
	room := make(chan struct{}, atOnce)
	for n := 0; ; n++ {
		pause := time.Duration(r.ExpFloat64() / (s.rate * d.lab.rate) * float64(time.Second))
		select {
		case <-sending.Done():
			return
		case <-time.After(pause):
		}
		a, v := s.ask(r), visitors[r.IntN(len(visitors))]
		a.ID = fmt.Sprintf("%d-%d", index, n)
		select {
		case room <- struct{}{}:
			under.Go(func() { d.keep(index, v.Do(ctx, a)); <-room })
		default:
		}
	}
}

func (d *load) keep(index int, o rig.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.results = append(d.results, o)
	if index >= 0 {
		d.labels[o.Ask.ID] = index
	}
}

// finish sends no more, and returns when each request has ended.
func (d *load) finish() {
	d.stop()
	d.sending.Wait()
}
