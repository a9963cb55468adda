package mux

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// hostile is a peer over TCP that speaks frames of its own making to a session that
// has accepted one of its streams and opened others, and reads none of them.
type hostile struct {
	t       *testing.T
	conn    net.Conn
	victim  Session
	taken   *atomic.Int64 // bytes that the victim has read
	sent    int64
	heard   atomic.Int64
	budget  *Budget
	first   uint32 // of its own ids
	theirs  uint32 // the first id of the victim's streams
	next    uint32 // of its ids that it has not used
	echo    Stream // of a neighbour, who has done nothing
	most    int64  // bytes of memory that it has cost so far
	before  int64
	checked int64 // what was sent when memory was measured last
}

// victimStreams is how many streams the victim opens.
const victimStreams = 8

// takenConn counts what is read from it.
type takenConn struct {
	*net.TCPConn
	n atomic.Int64
}

func (c *takenConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// memory is how much the heap and the stacks hold that is in use.
func memory() int64 {
	runtime.GC()
	runtime.GC() // what pools kept, too
	all := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(all)
	return int64(all[0].Value.Uint64() + all[1].Value.Uint64())
}

// attack prepares one.
func attack(t *testing.T, start func(net.Conn, Config) (Session, error)) *hostile {
	h := &hostile{t: t, budget: NewBudget(16 << 20), first: 1, theirs: 2}
	c, s := tcpConns(t)
	near, far := sessions(t, c, s, Config{Budget: h.budget})
	mine, echo := streams(t, near, far)
	go io.Copy(echo, onlyReader{echo})
	h.echo = mine
	h.neighbour()
	body := make([]byte, 512<<10)
	h.before = memory()

	c, s = tcpConns(t)
	c.(*net.TCPConn).SetReadBuffer(16 << 10)
	s.(*net.TCPConn).SetWriteBuffer(16 << 10)
	h.conn = c
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	counted := &takenConn{TCPConn: s.(*net.TCPConn)}
	h.taken = &counted.n
	h.victim = lasting(t, start, counted, Config{MaxStreams: 1, Budget: h.budget})
	if h.victim.(*session).nextID == 1 {
		h.first, h.theirs = 2, 1
	}
	h.next = h.first
	h.send(h.open())
	if _, err := h.victim.Accept(); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(victimStreams) {
		st, err := h.victim.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h.send(frame(typeWindow, flagACK, h.theirs+2*i, 0, ""))
		go st.Write(body)
	}
	return h
}

// open opens one more stream.
func (h *hostile) open() string {
	id := h.next
	h.next += 2
	return frame(typeWindow, flagSYN, id, 0, "")
}

// send sends frames; where the session has ended, it does nothing.
func (h *hostile) send(frames string) {
	for len(frames) > 0 && h.victim.Err() == nil {
		n, err := io.WriteString(h.conn, frames[:min(len(frames), 1<<20)])
		h.sent += int64(n)
		frames = frames[n:]
		if err != nil {
			h.gone() // or it is not the victim who hung up
			return
		}
		if h.sent-h.checked > 2<<20 {
			h.checked = h.sent
			h.measure()
		}
	}
}

// flood sends frames again and again, 3 MiB of them.
func (h *hostile) flood(frames ...string) {
	all := strings.Join(frames, "")
	all = strings.Repeat(all, (256<<10)/len(all)+1)
	for sent := 0; sent < 3<<20; sent += len(all) {
		h.send(all)
	}
}

// measure waits until the victim has taken everything and notes the memory.
func (h *hostile) measure() {
	h.t.Helper()
	poll.Until(h.t, "the victim reads, or has ended", func() bool { return h.taken.Load() == h.sent || h.victim.Err() != nil })
	h.neighbour()
	h.most = max(h.most, memory()-h.before)
}

// neighbour has another session carry something.
func (h *hostile) neighbour() {
	h.t.Helper()
	h.echo.SetDeadline(time.Now().Add(time.Minute))
	body := strings.Repeat("unharmed", 4<<10)
	go io.WriteString(h.echo, body)
	checkRead(h.t, h.echo, body)
}

// gone waits until the session has ended.
func (h *hostile) gone() {
	poll.Until(h.t, "the session ends", func() bool { return h.victim.Err() != nil })
}

// listen takes everything that the victim sends.
func (h *hostile) listen() {
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := h.conn.Read(b)
			if err != nil {
				return
			}
			h.heard.Add(int64(n))
		}
	}()
}

// hear waits until the victim has sent n bytes more than then.
func (h *hostile) hear(then, n int64) {
	poll.Until(h.t, "the victim answers", func() bool { return h.heard.Load() >= then+n })
}

// floods are attacks, what the error says that they end the session with, if any, and how much
// memory they may cost where it is more than a little.
var floods = map[string]struct {
	play func(h *hostile)
	ends string
	most int64
}{
	"pings, nothing is read":   {play: func(h *hostile) { h.flood(frame(typePing, flagSYN, 0, 7, "")) }},
	"pings, and their answers": {play: func(h *hostile) { h.listen(); h.flood(frame(typePing, flagSYN, 0, 7, "")) }},
	"answers to no ping":       {play: func(h *hostile) { h.flood(frame(typePing, flagACK, 0, 1, "") + frame(typePing, flagACK, 0, 99, "")) }},
	"pings in both roles":      {play: func(h *hostile) { h.flood(frame(typePing, flagSYN|flagACK|flagFIN|flagRST, 77, 1, "")) }},
	"opens, nothing is read": {play: func(h *hostile) {
		for range 200 {
			h.send(h.opens(1000))
		}
	}, ends: errFlood.Error()},
	"opens, and their resets": {play: func(h *hostile) {
		h.listen()
		for range 200 {
			then := h.heard.Load()
			h.send(h.opens(1000))
			h.hear(then, 1000*headerSize)
		}
	}},
	"opens and resets": {play: func(h *hostile) {
		h.send(frame(typeWindow, flagRST, h.first, 0, "")) // makes a place
		for range 200 {
			h.send(h.openAnd(1000, func(id uint32) string { return frame(typeWindow, flagRST, id, 0, "") }))
		}
	}},
	"opens with a reset": {play: func(h *hostile) {
		for range 200 {
			h.send(h.openAnd(1000, nil))
		}
	}},
	"whole streams that nobody accepts": {play: func(h *hostile) {
		h.listen()
		h.send(frame(typeWindow, flagFIN|flagRST, h.first, 0, "")) // makes a place
		body := strings.Repeat("x", initialWindow)
		for range maxUnaccepted / 2 {
			id := h.next
			h.send(h.open() + data(0, id, body) + frame(typeWindow, flagFIN, id, 0, "") + frame(typeWindow, flagRST, id, 0, ""))
		}
	}},
	"window updates": {play: func(h *hostile) {
		h.listen()
		h.flood(frame(typeWindow, 0, h.theirs, 1<<32-1, ""), frame(typeWindow, 0, h.theirs, 1, ""), frame(typeWindow, 0, h.first, 1<<31, ""))
	}},
	"window updates, nothing is read": {play: func(h *hostile) { h.flood(frame(typeWindow, 0, h.theirs+2, 1, "")) }},
	"window updates for nobody":       {play: func(h *hostile) { h.flood(frame(typeWindow, flagACK, 12345, 1<<32-1, "")) }},
	"acceptances": {play: func(h *hostile) {
		h.flood(frame(typeWindow, flagACK, h.theirs, 0, ""), frame(typeWindow, flagACK, h.first, 0, ""))
	}},
	"ends": {play: func(h *hostile) { h.flood(frame(typeWindow, flagFIN, h.theirs, 0, ""), data(flagFIN, h.first, "x")) }},
	"resets": {play: func(h *hostile) {
		for i := range uint32(victimStreams) {
			h.send(strings.Repeat(data(flagRST, h.theirs+2*i, "x"), 10_000))
		}
	}},
	"data for nobody":        {play: func(h *hostile) { h.flood(data(0, 12345, strings.Repeat("x", 1000))) }},
	"4 GiB for nobody":       {play: func(h *hostile) { h.send(frame(typeData, 0, 12345, 1<<32-1, "")); h.flood("x") }},
	"4 GiB for a stream":     {play: func(h *hostile) { h.send(frame(typeData, 0, h.first, 1<<32-1, "x")) }, ends: "more than its window"},
	"a byte over the window": {play: func(h *hostile) { h.flood(data(0, h.theirs, strings.Repeat("x", 1<<10))) }, ends: "more than its window"},
	"windows full, all of them": {play: func(h *hostile) {
		for i := range uint32(victimStreams) {
			h.send(data(0, h.theirs+2*i, strings.Repeat("x", initialWindow)))
		}
		h.send(data(0, h.first, strings.Repeat("x", initialWindow)))
	}, most: 2<<20 + (victimStreams+1)*initialWindow},
	"windows full, byte by byte": {play: func(h *hostile) {
		for i := range uint32(victimStreams) {
			h.send(strings.Repeat(data(0, h.theirs+2*i, "x"), 20_000))
		}
	}, most: 2<<20 + (victimStreams+1)*initialWindow},
	"empty data":          {play: func(h *hostile) { h.flood(data(0, h.theirs, "")) }},
	"stream 0":            {play: func(h *hostile) { h.flood(frame(typeWindow, flagSYN, 0, 0, "")) }, ends: "not the peer's to open"},
	"the victim's ids":    {play: func(h *hostile) { h.flood(frame(typeWindow, flagSYN, h.theirs+100, 0, "")) }, ends: "not the peer's to open"},
	"a stream in use":     {play: func(h *hostile) { h.flood(frame(typeWindow, flagSYN, h.first, 0, "")) }, ends: "opened twice"},
	"an unknown type":     {play: func(h *hostile) { h.flood(frame(77, 255, 1, 1<<32-1, "")) }, ends: "unknown type"},
	"another version":     {play: func(h *hostile) { h.flood("\xff\xff\xff\xff") }, ends: "does not speak yamux"},
	"a wrong end":         {play: func(h *hostile) { h.flood(frame(typeGoAway, 255, 1<<32-1, 1<<32-1, "")) }, ends: "error 4294967295"},
	"ends of the session": {play: func(h *hostile) { h.flood(frame(typeGoAway, 0, 0, 0, "")) }, ends: "closed the connection"},
	"half a header":       {play: func(h *hostile) { h.send(frame(typeData, 0, h.first, 100, "")[:7]) }},
	"half a frame":        {play: func(h *hostile) { h.send(frame(typeData, 0, h.first, initialWindow, "x")) }},
	"half, then hung up":  {play: func(h *hostile) { h.send(data(0, h.first, "x")[:5]); h.conn.Close(); h.gone() }, ends: "session closed"},
	"frames by chance":    {play: func(h *hostile) { h.chance() }},
}

// opens opens n streams.
func (h *hostile) opens(n int) string {
	var all strings.Builder
	for range n {
		all.WriteString(h.open())
	}
	return all.String()
}

// openAnd opens n streams, each followed by what then makes of its id; nil: each by a
// frame that resets it, too.
func (h *hostile) openAnd(n int, then func(id uint32) string) string {
	var all strings.Builder
	for range n {
		id := h.next
		if then == nil {
			h.next += 2
			all.WriteString(data(flagSYN|flagRST, id, "x"))
			continue
		}
		all.WriteString(h.open() + then(id))
	}
	return all.String()
}

// chance sends well-formed frames that say anything, until the session ends, again and again.
func (h *hostile) chance() {
	h.listen()
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var all strings.Builder
		for range 1000 {
			flags := []byte{0, flagACK, flagFIN, flagRST, flagACK | flagFIN, byte(random.Uint32()) &^ flagSYN}[random.IntN(6)]
			id := random.Uint32N(40)
			switch random.IntN(3) {
			case 0:
				all.WriteString(frame(typeWindow, flags, id, random.Uint32(), ""))
			case 1:
				all.WriteString(data(flags, id, strings.Repeat("x", random.IntN(50))))
			default:
				all.WriteString(frame(typePing, byte(random.Uint32()), id, random.Uint32N(10), ""))
			}
		}
		h.send(all.String())
	}
}

// TestHostilePeer is S10: whatever frames a peer sends, to a server or to a client, they cost
// little memory, end at most their own session, and harm no other.
func TestHostilePeer(t *testing.T) {
	for role, start := range map[string]func(net.Conn, Config) (Session, error){"server": Server, "client": Client} {
		for name, f := range floods {
			t.Run(fmt.Sprint("to a ", role, ", ", name), func(t *testing.T) {
				h := attack(t, start)
				goroutines := runtime.NumGoroutine()
				f.play(h)
				h.measure()
				if n := runtime.NumGoroutine(); n > goroutines+2 {
					t.Errorf("%d goroutines, %d before", n, goroutines)
				}
				if f.ends != "" {
					h.gone()
				}
				if err := h.victim.Err(); (err != nil) != (f.ends != "") || err != nil && !strings.Contains(err.Error(), f.ends) {
					t.Errorf("the session: %v, want %q", err, f.ends)
				}
				h.measure()
				t.Logf("%d bytes sent, %.2f MiB of memory", h.sent, float64(h.most)/(1<<20))
				if most := max(f.most, 2<<20); h.most > most {
					t.Errorf("%d bytes of memory, want %d at most", h.most, most)
				}
				if h.budget.Resets() > 0 {
					t.Errorf("%d resets for the budget", h.budget.Resets())
				}
			})
		}
	}
}
