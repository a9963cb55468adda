package edge

import "time"

// What a connection of HTTP/2 may spend on frames that are no request's and carry
// no byte of one. A visitor who has a page's hundred requests cancelled is far
// below, one that only ever sends such frames is slowed down to the rate (S6,
// CVE-2023-44487): cut off, a proxy's connection would take its visitors with it.
const (
	rationBurst = 250 * resetCost // all the requests that net/http lets be under way
	rationRate  = 250             // a second
	rationBytes = 256             // of bodies, either way, that earn one
	resetCost   = 4               // of a request that was begun for nothing
)

// ration counts what a connection has left of that.
type ration struct {
	left float64
	then time.Time // of the last spend
}

// spend takes cost off, and says how long the visitor is to wait for it. bytes are
// those of bodies and answers since the last call.
func (r *ration) spend(now time.Time, cost, bytes int64) time.Duration {
	earned := now.Sub(r.then).Seconds()*rationRate + float64(bytes)/rationBytes
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
		return resetCost
	}
	return 1
}
