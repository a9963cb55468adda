package mux

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// FuzzPeer lets a peer send any bytes: no panic, and what the session keeps of
// them is bounded by its limits.
func FuzzPeer(f *testing.F) {
	const maxStreams = 8
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
		manyOpens(2 * maxStreams),
		"GET / HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(sent), true)
		f.Add([]byte(sent), false)
	}
	f.Fuzz(func(t *testing.T, sent []byte, isClient bool) {
		a, b := net.Pipe()
		start := Server
		if isClient {
			start = Client
		}
		s, err := start(a, Config{MaxStreams: maxStreams})
		if err != nil {
			t.Fatal(err)
		}
		var using sync.WaitGroup
		using.Go(func() { use(t, s, &using) })
		go io.Copy(io.Discard, b)
		b.SetWriteDeadline(time.Now().Add(time.Minute))
		b.Write(sent)
		if n := s.(*session).count(); n > maxStreams+1 {
			t.Errorf("%d streams", n)
		}
		b.Close()
		<-s.Done()
		if err := s.Err(); err == nil || strings.Contains(err.Error(), "panic") {
			t.Errorf("Err: %v", err)
		}
		s.Close()
		using.Wait()
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
