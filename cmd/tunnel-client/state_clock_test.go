package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/tunnel"
)

const year = 365 * 24 * time.Hour

// R35: what was remembered while the clock stood elsewhere is forgotten in time,
// whichever way it was set since. (To the files it is the same whether the clock
// or their times are moved.)
func TestStateClockSet(t *testing.T) {
	s := newState(t)
	for by, want := range map[time.Duration]tunnel.Transport{
		0: tunnel.WebSocket, time.Hour: tunnel.WebSocket, -time.Hour: tunnel.WebSocket,
		10 * year: tunnel.Raw, -10 * year: tunnel.Raw,
	} {
		if err := s.keepTransport("http://a", tunnel.WebSocket); err != nil {
			t.Fatal(err)
		}
		setTimes(t, s.transportFile("http://a"), time.Now().Add(by))
		if got := s.transport("http://a"); got != want {
			t.Errorf("remembered at now %+v: %s first, want %s", by, got, want)
		}
		if err := s.keepTransport("http://a", tunnel.WebSocket); err != nil {
			t.Fatal(err)
		}
		if got := s.transport("http://a"); got != tunnel.WebSocket {
			t.Errorf("remembered at now %+v, and again: %s first", by, got)
		}
	}
}

// R35: a clock that was set does not make the names that are new be forgotten at
// once, nor more of the old than it takes.
func TestStateNamesClockSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, 10 * year, -10 * year} {
		s := newState(t)
		at := func(i int) place { return place{"http://a", fmt.Sprint("/dir", i), "x"} }
		for i := range maxKept {
			writeFile(t, s.path(at(i)), `{}`)
			setTimes(t, s.path(at(i)), time.Now().Add(by))
		}
		for i := range 3 {
			if err := s.keep(at(maxKept+i), "name"); err != nil {
				t.Fatal(err)
			}
		}
		left := 0
		for i := range maxKept + 3 {
			_, err := os.Stat(s.path(at(i)))
			if err == nil {
				left++
			} else if i >= maxKept {
				t.Errorf("clock set by %v: the name that was kept last is gone", -by)
			}
		}
		if left != maxKept {
			t.Errorf("clock set by %v: %d names are left, want %d", -by, left, maxKept)
		}
	}
}

func setTimes(t *testing.T, path string, to time.Time) {
	t.Helper()
	if err := os.Chtimes(path, to, to); err != nil {
		t.Fatal(err)
	}
}
