package mux

import (
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// FuzzPeer lets a peer send any bytes: no panic, and what the session keeps of
// them is bounded by its limits.
func FuzzPeer(f *testing.F) {
	pieces, _ := answer()
	open := frame(typeWindow, flagSYN, 1, 0, "")
	for _, sent := range []string{
		"",
		strings.Join(pieces, ""),
		open + data(0, 1, "hello") + frame(typeWindow, flagFIN, 1, 0, "") + frame(typeWindow, flagRST, 1, 0, ""),
		data(flagSYN|flagFIN, 1, "all at once") + data(flagSYN|flagRST, 3, "and away"),
		open + data(flagACK|flagFIN, 1, "x") + data(0, 1, "after the end") + frame(typeWindow, flagACK, 1, 1<<32-1, ""),
		frame(typePing, flagSYN, 0, 1, "") + frame(typePing, flagACK, 0, 0, "") + frame(typeGoAway, 0, 0, 1, ""),
		open + frame(typeData, 0, 1, 1<<32-1, "too long"),
		frame(typeData, 0, 5, 1<<32-1, "too long, for nobody"),
		strings.Repeat(open, 2),
		manyOpens(2 * fuzzStreams),
		"GET / HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(sent), true)
		f.Add([]byte(sent), false)
	}
	f.Fuzz(fromPeer)
}

// FuzzFrames is that with frames that are well-formed, for streams that are there.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x01\x01\x01\x00\x00\x00\x01\xff\x00\x04\x01\x01\x01\x08\x01\x00"), false)
	f.Add([]byte("\x01\x02\x01\x00\x00\x04\x01\x20\x01\x00\x01\xff\x02\x01\x00\x07\x00\x0f\x02\x01"), true)
	var opens []byte
	for id := range byte(4 * fuzzStreams) {
		opens = append(opens, typeWindow, flagSYN, 2*id+1, 0)
		if id%4 == 0 {
			opens = append(opens, typeData, 0, 0, 100) // for nobody: meanwhile some are accepted
		}
	}
	f.Add(opens, false)
	f.Fuzz(func(t *testing.T, does []byte, isClient bool) {
		var sent strings.Builder
		for ; len(does) >= 4 && sent.Len() < 512<<10; does = does[4:] {
			kind, flags, id, n := does[0]%4, does[1]%16, uint32(does[2]%64), uint32(does[3])
			switch kind {
			case typeData:
				sent.WriteString(data(flags, id, strings.Repeat("x", int(n*n*4))))
			case typeWindow:
				sent.WriteString(frame(kind, flags, id, n*n*n*259, ""))
			default:
				sent.WriteString(frame(kind, flags, id, n, ""))
			}
		}
		fromPeer(t, []byte(sent.String()), isClient)
	})
}

// fuzzStreams is how many streams the peer may open.
const fuzzStreams = 8

func fromPeer(t *testing.T, sent []byte, isClient bool) {
	a, b := net.Pipe()
	start := Server
	if isClient {
		start = Client
	}
	budget := NewBudget(64 << 10)
	s, err := start(a, Config{MaxStreams: fuzzStreams, Budget: budget})
	if err != nil {
		t.Fatal(err)
	}
	var using sync.WaitGroup
	using.Go(func() { use(t, s, &using) })
	go io.Copy(io.Discard, b)
	b.SetWriteDeadline(time.Now().Add(time.Minute))
	for piece := range slices.Chunk(sent, 4<<10) {
		b.Write(piece)
		runtime.Gosched() // or nothing is accepted before all has come
	}
	if n := s.(*session).count(); n > fuzzStreams+1 {
		t.Errorf("%d streams", n)
	}
	b.Close()
	<-s.Done()
	if err := s.Err(); err == nil || strings.Contains(err.Error(), "panic") {
		t.Errorf("Err: %v", err)
	}
	s.Close()
	using.Wait()
	// What nobody accepted is given back after Done.
	poll.Until(t, "all is given back", func() bool { return budget.Used() == 0 && budget.sessions() == 0 })
}

// FuzzHeader: a header that is parsed and written again is the same.
func FuzzHeader(f *testing.F) {
	f.Add([]byte(frame(typeData, flagSYN|flagFIN, 1, 1<<32-1, "")))
	f.Add([]byte(frame(typeGoAway, 255, 1<<32-1, 2, "")))
	f.Add([]byte("\x00\x01\x12\x34\x56\x78\x9a\xbc\xde\xf0\x12\x34"))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, ok := parseHeader(b)
		if again := appendHeader(nil, h); ok && string(again) != string(b[:headerSize]) || !ok && b[0] == 0 {
			t.Errorf("%x became %x, %v", b[:headerSize], again, ok)
		}
	})
}

// FuzzWindow has bytes arrive and be read, in any amounts and at any times, on paths
// that change: a window stays within its limits, and its accounts are right.
func FuzzWindow(f *testing.F) {
	const arrive, read, path, wait, others = 0, 1, 2, 3, 4
	fast := []byte{path, 0, 80}
	for range 40 {
		fast = append(fast, arrive, 255, 255, read, 255, 255, wait, 0, 80)
	}
	f.Add(fast)
	f.Add(append(fast, others, 255, 255, wait, 0, 200, read, 255, 255, arrive, 255, 0, read, 0, 1))
	f.Add([]byte{read, 1, 1, arrive, 0, 9, read, 0, 9, path, 255, 255, wait, 255, 255, arrive, 255, 255})
	f.Fuzz(func(t *testing.T, does []byte) {
		s := &session{}
		s.growth.budget = NewBudget(16 << 20)
		var w window
		w.init(s)
		unread, largest := 0, w.size
		for ; len(does) >= 3; does = does[3:] {
			n := int(does[1])<<8 | int(does[2])
			switch does[0] % 5 {
			case arrive:
				n = min(n<<8, w.credit)
				if !w.expects(uint32(n)) || w.expects(uint32(w.credit)+1) || w.expects(1<<32-1) {
					t.Fatalf("a credit of %d allows something else", w.credit)
				}
				w.arrived(n)
				unread += n
			case read:
				n = min(n<<8, unread)
				unread -= n
				before := w.credit
				grant := int(w.read(n, unread))
				if largest = max(largest, w.size); w.credit != before+grant || grant > 0 && w.credit+unread != w.size {
					t.Fatalf("granted %d on %d, to a credit of %d; %d unread, of %d", grant, before, w.credit, unread, w.size)
				}
			case path:
				s.life.shortest.Store(int64(n) * int64(time.Millisecond))
			case wait:
				w.since = w.since.Add(-time.Duration(n) * time.Millisecond)
			case others:
				s.growth.budget.used.Store(int64(n) << 8)
			}
			if w.credit < 0 || w.credit+unread > largest || w.size < initialWindow || w.size > maxWindow {
				t.Fatalf("a credit of %d and %d unread, of %d", w.credit, unread, w.size)
			}
			if used := int(s.growth.used.Load()); used != w.size-initialWindow || used > maxWindows {
				t.Fatalf("%d bytes are counted for a window of %d", used, w.size)
			}
		}
		w.close()
		if used := s.growth.used.Load(); used != 0 {
			t.Fatalf("%d bytes are not given back", used)
		}
	})
}

func manyOpens(n uint32) (frames string) {
	for i := range n {
		frames += frame(typeWindow, flagSYN, 2*i+1, 0, "")
	}
	return frames
}

// use opens a stream and echoes on those of the peer, as programs do.
func use(t *testing.T, s Session, using *sync.WaitGroup) {
	if st, err := s.Open(t.Context()); err == nil {
		using.Go(func() {
			io.WriteString(st, "hello")
			n, _ := io.Copy(io.Discard, st)
			if n > 1<<20 {
				t.Errorf("%d bytes were read, more than were sent", n)
			}
			st.Close()
		})
	}
	for {
		st, err := s.Accept()
		if err != nil {
			return
		}
		using.Go(func() {
			io.Copy(st, st)
			st.Close()
		})
	}
}
