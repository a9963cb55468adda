package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/tunnel"
)

func newState(t *testing.T) *state {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	s, err := openState()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStateKeepsTheFirstName(t *testing.T) {
	s := newState(t)
	p := place{"http://a", "/here", "http://localhost:3000"}
	if name, err := s.name(p); name != "" || err != nil {
		t.Fatalf("an empty state has %q, %v", name, err)
	}
	for _, name := range []string{"first", "second"} {
		if err := s.keep(p, name); err != nil {
			t.Fatal(err)
		}
	}
	if name, err := s.name(p); name != "first" || err != nil {
		t.Errorf("kept %q, %v", name, err)
	}
	for _, other := range []place{
		{"http://b", "/here", "http://localhost:3000"},
		{"http://a", "/there", "http://localhost:3000"},
		{"http://a", "/here", "http://localhost:4000"},
	} {
		if name, err := s.name(other); name != "" || err != nil {
			t.Errorf("%v has %q, %v", other, name, err)
		}
	}
}

// TestStateKeepsTheTransport: what did not get through is not tried first, for a
// day.
func TestStateKeepsTheTransport(t *testing.T) {
	s := newState(t)
	check := func(server string, want tunnel.Transport) {
		t.Helper()
		if got := s.transport(server); got != want {
			t.Errorf("%s: %s first, want %s", server, got, want)
		}
	}
	keep := func(server string, used tunnel.Transport) {
		t.Helper()
		if err := s.keepTransport(server, used); err != nil {
			t.Fatal(err)
		}
	}
	check("http://a", tunnel.Raw)
	keep("http://a", tunnel.Raw) // there is nothing to forget
	keep("http://a", tunnel.WebSocket)
	check("http://a", tunnel.WebSocket)
	check("http://b", tunnel.Raw)
	almost := time.Now().Add(-transportTime + time.Minute)
	if err := os.Chtimes(s.transportFile("http://a"), almost, almost); err != nil {
		t.Fatal(err)
	}
	keep("http://a", tunnel.WebSocket)
	if info, err := os.Stat(s.transportFile("http://a")); err != nil || time.Since(info.ModTime()) < time.Hour {
		t.Errorf("the day begins anew: %v", err)
	}
	old := time.Now().Add(-transportTime - time.Minute)
	if err := os.Chtimes(s.transportFile("http://a"), old, old); err != nil {
		t.Fatal(err)
	}
	check("http://a", tunnel.Raw)
	keep("http://a", tunnel.WebSocket)
	check("http://a", tunnel.WebSocket)
	keep("http://a", tunnel.Raw)
	check("http://a", tunnel.Raw)
}

func TestStateIsForTheUserAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing there")
	}
	s := newState(t)
	if _, err := s.machineToken("http://a"); err != nil {
		t.Fatal(err)
	}
	if err := s.keep(place{"http://a", "/here", "x"}, "name"); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStateDamaged(t *testing.T) {
	p := place{"http://a", "/here", "x"}
	for _, content := range []string{
		"", "{", "null", `{"name":"first"}`, strings.Repeat("x", 1<<20),
		`{"server":"http://a","directory":"/here","target":"x","name":"Not A Name"}`,
		`{"server":"http://other","directory":"/here","target":"x","name":"first"}`,
	} {
		s := newState(t)
		writeFile(t, s.path(p), content)
		if name, err := s.name(p); name != "" || err == nil {
			t.Errorf("%.40q: name %q, %v", content, name, err)
		}
		if err := s.keep(p, "second"); err != nil {
			t.Errorf("%.40q: %v", content, err)
		}
		if name, err := s.name(p); name != "second" || err != nil {
			t.Errorf("%.40q: after keep it has %q, %v", content, name, err)
		}
	}
}

func TestStateHasABound(t *testing.T) {
	s := newState(t)
	at := func(i int) place { return place{"http://a", fmt.Sprint("/dir", i), "x"} }
	long := time.Now().Add(-time.Hour)
	for i := range maxKept {
		writeFile(t, s.path(at(i)), `{}`)
		os.Chtimes(s.path(at(i)), long, long.Add(time.Duration(i)*time.Second))
	}
	for i := range 3 {
		if err := s.keep(at(maxKept+i), "name"); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(filepath.Join(s.dir, "names"))
	if err != nil || len(left) != maxKept {
		t.Fatalf("%d names are kept, want %d (%v)", len(left), maxKept, err)
	}
	for i, want := range map[int]bool{0: false, 2: false, 3: true, maxKept + 2: true} {
		if _, err := os.Stat(s.path(at(i))); (err == nil) != want {
			t.Errorf("place %d is kept: %v, want %v", i, err == nil, want)
		}
	}
}

func TestMachineToken(t *testing.T) {
	s := newState(t)
	var mu sync.Mutex
	tokens := make(map[string]int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			token, err := s.machineToken("http://a")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			tokens[token]++
		})
	}
	wg.Wait()
	if len(tokens) != 1 {
		t.Errorf("clients that start at the same time have %d tokens", len(tokens))
	}
	for token := range tokens {
		if err := checkToken(token); err != nil || len(token) < 40 {
			t.Errorf("a token of %d bytes, %v", len(token), err)
		}
		other, err := s.machineToken("http://b")
		if err != nil || other == token {
			t.Errorf("another server gets the same token (%v)", err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, tempPattern)); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestMachineKeyDamaged(t *testing.T) {
	s := newState(t)
	path := filepath.Join(s.dir, "machine-key")
	for _, content := range []string{"", "zz", "00", strings.Repeat("0", 62)} {
		writeFile(t, path, content)
		one, err := s.machineToken("http://a")
		if err != nil {
			t.Fatalf("%q: %v", content, err)
		}
		if two, err := s.machineToken("http://a"); two != one {
			t.Errorf("%q: the new key does not stay (%v)", content, err)
		}
	}
	os.Remove(path)
	os.Mkdir(path, 0o700)
	if _, err := s.machineToken("http://a"); err == nil {
		t.Error("no error where there is a directory in its place")
	}
}
