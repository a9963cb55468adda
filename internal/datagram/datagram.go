// Package datagram keeps the visitors of a UDP socket apart: each address and port that
// datagrams come from has a stream of its own, with capsules (package capsule). It is the
// way into the tunnel, at a public port of the server as at a client that reaches a
// private endpoint; package forward has the way out. Begin reading at [Port].
//
// Datagrams stay in their order, and are as they were. Nothing waits that could hold up
// others: a datagram is dropped, and counted, where its stream does not open, where too
// much waits for the stream, and where it comes from a visitor who is one too many. Who
// sends from many addresses, which can be forged, takes the places of visitors who never
// answered to an answer, the oldest first, and those of others only when there are no
// such.
package datagram

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
)

const (
	// defaultIdle is the least that RFC 4787, section 4.3, wants of a NAT.
	defaultIdle     = 2 * time.Minute
	defaultVisitors = 1000
	// portQueue bounds the datagrams that wait, or are being read, of a port, in bytes;
	// ownQueue is not counted with those of the other ports of a group.
	portQueue, ownQueue = 8 << 20, 256 << 10
	// socketBuffer is what the kernel may hold of a port, in bytes, where it lets it be.
	socketBuffer = 1 << 20
	// quietTime is after how long a visitor has ended, of a port that is to close.
	quietTime = time.Second
)

// Config is what a Port is made with.
type Config struct {
	// Dial opens the stream of a new visitor, who is at from. Its ctx ends with the
	// visitor. The stream is closed by the port; to abort it, it is Reset where it has
	// that method. What comes meanwhile waits, as far as there is
	// room.
	Dial func(ctx context.Context, from netip.AddrPort) (net.Conn, error)
	// Idle is how long a visitor is remembered of whom and for whom nothing came. 0: 2
	// minutes.
	Idle time.Duration
	// Visitors is how many there may be at once. 0: 1,000.
	Visitors int
	// Group bounds what several ports have together. Nil: this one is alone.
	Group *Group
	// Full refuses new visitors while it is true. Nil: never.
	Full func() bool
	// Admits reports whether a new visitor may have a place, by its address. Nil: each.
	Admits func(netip.Addr) bool
	// Ended is called after each visitor, from many goroutines. Nil: nothing is.
	Ended func(Visit)
	// Log gets how much was dropped, at most once a minute. Nil discards.
	Log *slog.Logger
}

func (c *Config) idle() time.Duration { return cmp.Or(c.Idle, defaultIdle) }

func (c *Config) visitors() int { return cmp.Or(c.Visitors, defaultVisitors) }

func (c *Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Visit is what became of a visitor.
type Visit struct {
	From  netip.AddrPort
	Began time.Time
	Bytes int64 // that went to the visitor
	Err   error // of Dial; nil where there was a stream
}

// Group bounds what several ports have together. Its fields are set before the first of
// them is made.
type Group struct {
	Visitors int64          // at once
	Budget   capsule.Budget // what waits, or is being read, beyond 256 KiB of each port

	visitors atomic.Int64
}

// The methods of a nil Group bound nothing.

func (g *Group) budget() *capsule.Budget {
	if g == nil {
		return nil
	}
	return &g.Budget
}

func (g *Group) full() bool { return g != nil && g.visitors.Load() >= g.Visitors }

func (g *Group) add(n int64) {
	if g != nil {
		g.visitors.Add(n)
	}
}

// Stats counts what a [Port] has passed on and dropped.
type Stats struct {
	Visitors int64 // that there are now
	In, Out  int64 // datagrams from visitors, and to them
	Dropped  Dropped
}

// Dropped counts datagrams by why they were dropped.
type Dropped struct {
	Away    int64 // there was no stream, or it ended
	Full    int64 // too much waited for the stream
	Refused int64 // of a new visitor: too many of them, or too fast, or memory was full
	Unsent  int64 // to a visitor: the network did not take it
}
