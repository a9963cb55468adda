package edge

import (
	"net/http"
	"sync/atomic"
	"time"
)

// What a connection of HTTP/2 may spend on frames that are no request's and carry
// no byte of one, and as much on requests that were begun for nothing. A visitor who
// has a page's hundred requests cancelled is far below, one that does nothing else is
// slowed down to the rate (S6): cut off, a proxy's connection would take its visitors
// with it.
const (
	rationBurst = 250 * resetCost // all the requests that net/http lets be under way
	rationRate  = 250             // a second
	rationBytes = 256             // of bodies, either way, that earn one
	resetCost   = 4               // of a request that was begun for nothing
	// vainBytes earn one for such requests. It is far more than rationBytes: bytes come
	// cheap, and a request costs others more than a frame.
	vainBytes = 16 << 10
)

// rations are what a connection of HTTP/2 has left.
type rations struct {
	frames, vain ration
	written      atomic.Int64 // bytes of answers, since spent
	begun        atomic.Int64 // requests that were begun for nothing, since spent
}

// spend says how long the visitor is to wait for what he sent since the last call:
// frames of this cost, and bytes of bodies.
func (r *rations) spend(now time.Time, cost, bytes int64) time.Duration {
	bytes += r.written.Swap(0)
	return max(
		r.frames.spend(now, cost, float64(bytes)/rationBytes),
		r.vain.spend(now, resetCost*r.begun.Swap(0), float64(bytes)/vainBytes),
	)
}

// inVain is called when r was answered, or not. The visitor pays for it where it was
// taken back: by RST_STREAM (CVE-2023-44487), or by what makes net/http send one
// (CVE-2025-8671).
func inVain(r *http.Request) {
	if r.ProtoMajor != 2 || r.Context().Err() == nil {
		return
	}
	if c, ok := r.Context().Value(connKey{}).(*timedConn); ok {
		c.rations.begun.Add(1)
	}
}

// ration counts what is left of one of them.
type ration struct {
	left float64
	then time.Time // of the last spend
}

// spend takes cost off, and says how long the visitor is to wait for it. earned is
// what bytes since the last call are worth.
func (r *ration) spend(now time.Time, cost int64, earned float64) time.Duration {
	earned += now.Sub(r.then).Seconds() * rationRate
	r.then = now
	r.left = min(r.left+earned, rationBurst) - float64(cost)
	if r.left >= 0 {
		return 0
	}
	return time.Duration(-r.left / rationRate * float64(time.Second))
}

// frameCost is what a frame with this header costs: a HEADERS frame nothing, as it
// begins a request, and there is another bound for those.
func frameCost(head [frameHeaderSize]byte) int64 {
	switch {
	case head[3] == frameHeaders, head[3] == frameData && (head[0] > 0 || head[1] > 0 || head[2] > 0):
		return 0
	case head[3] == frameReset:
		return resetCost // also where its request never reached a handler
	}
	return 1
}
