package mux

import (
	"errors"
	"testing"
)

// The limit can be raised while a session lives. What is within it is taken, the rest
// is reset, and what was not accepted yet stays bounded whatever the limit is (S10).
func TestLimit(t *testing.T) {
	c, s := tcpConns(t)
	near, far := sessions(t, c, s, Config{MaxStreams: 1})
	first, _ := streams(t, near, far)
	defer first.Close()
	open := func() Stream {
		t.Helper()
		st, err := near.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if _, err := open().Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
		t.Errorf("beyond the first limit: %v", err)
	}
	far.Limit(3)
	for range 2 {
		defer open().Close()
		st, err := far.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
	}
	if _, err := open().Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
		t.Errorf("beyond the second limit: %v", err)
	}

	far.Limit(1 << 20)
	victim := far.(*session)
	for id := uint32(1001); id < 1001+2*2*maxUnaccepted; id += 2 { // as a peer that does not wait
		if _, err := victim.opened(id); err != nil {
			t.Fatal(err)
		}
	}
	victim.mu.Lock()
	defer victim.mu.Unlock()
	if n := len(victim.accepted); n != maxUnaccepted {
		t.Errorf("%d streams wait to be accepted, want %d at most", n, maxUnaccepted)
	}
}
