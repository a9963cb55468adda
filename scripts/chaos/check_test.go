package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
)

const rolePretend = "role-pretend"

// pretend is a child process that does what is said, tells it, and then stays until its standard input
// ends.
func pretend(what string) {
	const most = 4 * few
	switch what {
	case "to end":
		fmt.Println("these are my last words")
		return
	case "to panic":
		panic("on purpose")
	case "to survive a panic":
		fmt.Println("http: panic serving 127.0.0.1:1: on purpose")
	case "to leak goroutines":
		for range most {
			go func() { select {} }()
		}
	case "to leak descriptors":
		for range most {
			r, _, err := os.Pipe()
			if err != nil {
				panic(err)
			}
			defer r.Close()
		}
	case "to keep some":
		for range few / 2 {
			go func() { select {} }()
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// pretender is a lab with nothing but one process that pretends.
func pretender(t *testing.T, what string) *lab {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{options: &options{}, site: &rig.Site{Context: t.Context(), Dir: t.TempDir()}}
	l.server = &process{command: rig.Command{Path: self, Args: []string{rolePretend, what}}}
	if err := l.start(l.server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	poll.Until(t, what+" is ready, or has ended", func() bool { return l.server.Printed("ready") == nil || l.server.Exited() })
	return l
}

// A process that ends by itself, or panics, is found, and no other.
func TestCrashed(t *testing.T) {
	for what, want := range map[string]string{
		"nothing": "", "to end": "these are my last words", "to panic": "panic: on purpose", "to survive a panic": "panic serving",
	} {
		l := pretender(t, what)
		err := l.crashed()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error()+l.server.Log(), want) {
			t.Errorf("%q: %v", what, err)
		}
	}
	l := pretender(t, "nothing")
	l.server.Kill()
	if err := l.crashed(); err != nil {
		t.Errorf("killed: %v", err)
	}
}

// A process that holds more than before is found.
func TestCompare(t *testing.T) {
	before := (&trial{lab: pretender(t, "nothing")}).count()
	if before[0].goroutines < 1 || before[0].descriptors < 3 {
		t.Fatalf("counted %+v", before)
	}
	for what, leaks := range map[string]bool{
		"nothing": false, "to keep some": false, "to leak goroutines": true, "to leak descriptors": true,
	} {
		found := &trial{lab: pretender(t, what), out: io.Discard}
		found.compare(slices.Clone(before))
		if (len(found.problems) > 0) != leaks {
			t.Errorf("%q: problems %q", what, found.problems)
		}
	}
}
