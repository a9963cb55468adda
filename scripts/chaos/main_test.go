package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A child that a lab starts from this executable is an app, or pretends to be a process
// that goes wrong.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == rolePretend {
		pretend(os.Args[2])
		return
	}
	if known, err := playRole(os.Args[1:]); known {
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// binaries builds both commands.
func binaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "../../cmd/...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// A short run with a fixed seed loses nothing, and the oracle convicts a proxy that does wrong.
func TestShortRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	t.Setenv("TMPDIR", t.TempDir())
	bin := binaries(t)
	for _, test := range []struct {
		plant  string
		length time.Duration
		want   string // in the output, where it fails
	}{
		{length: 9 * time.Second},
		{"truncate", 1500 * time.Millisecond, "truncated unseen"},
		{"duplicate", 1500 * time.Millisecond, "duplicated"},
		{"mix", 1500 * time.Millisecond, "cross-talk"},
		{"end", 1500 * time.Millisecond, "truncated unseen"},
	} {
		t.Run(test.plant, func(t *testing.T) {
			rate := 1.0
			if test.plant == "" {
				rate = 0.5 // other packages' tests want the cores, too, and the tunnels have to be back in time
			}
			var out bytes.Buffer
			failed, err := chaos(t.Context(), &options{length: test.length, seed: 4, rate: rate, bin: bin, plant: test.plant}, &out)
			if test.plant == "" && strings.Contains(out.String(), ": 0 faults") || strings.Contains(out.String(), ", 0 requests,") {
				t.Errorf("nothing was tried:\n%s", out.String())
			}
			if err != nil || failed != (test.plant != "") || !strings.Contains(out.String(), "WRONG") != (test.plant == "") {
				t.Fatalf("failed %v, error %v:\n%s", failed, err, out.String())
			}
			if wrong := out.String()[max(strings.Index(out.String(), "WRONG"), 0):]; test.want != "" && !strings.Contains(strings.SplitN(wrong, "\n", 2)[0], test.want) {
				t.Errorf("want %q:\n%s", test.want, out.String())
			}
		})
	}
}

// The faults come from the seed alone.
func TestScheduleIsTheSeeds(t *testing.T) {
	list := func(seed uint64) (all []string) {
		for _, f := range schedule(seed, true, 2000) {
			all = append(all, f.kind+" "+f.what+" "+f.after.String())
		}
		return all
	}
	one := list(1)
	if again := list(1); !slices.Equal(one, again) {
		t.Error("the same seed makes other faults")
	}
	if other := list(2); slices.Equal(one, other) {
		t.Error("another seed makes the same faults")
	}
	kinds := make(map[string]bool)
	for _, f := range schedule(1, true, 2000) {
		kinds[f.kind] = true
	}
	for _, kind := range []string{
		"server killed", "server terminated", "server stopped", "client killed", "client terminated", "client stopped", "client stopped above 45 s",
		"app killed", "app stopped", "link reset", "link reset at a byte", "link finished at a byte", "link half-closed at a byte", "link slow",
		"link silent", "link silent above 45 s", "link silent to the server", "link silent to the client above 45 s",
		"visitors reset", "visitor reset at a byte", "visitors silent", "visitors slow", "visitors' datagrams lost",
		"visitors of TLS reset", "visitor of a port reset at a byte", "connect killed", "connect stopped",
		"origin killed", "origin stopped", "origin terminated",
	} {
		if !kinds[kind] {
			t.Errorf("there is no %q", kind)
		}
	}
}

func TestStarvedIn(t *testing.T) {
	const text = "TcpExt: A TCPAbortOnMemory TCPMemoryPressures\nTcpExt: 1 20 300\nIpExt: B\nIpExt: 4000\n"
	if got := starvedIn(text); got != 320 {
		t.Errorf("got %d, want 320", got)
	}
}
