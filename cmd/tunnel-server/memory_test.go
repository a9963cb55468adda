package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/pace"
)

func TestSize(t *testing.T) {
	const all = 1000 << 20
	for text, want := range map[string]uint64{
		"512MiB": 512 << 20, "512 MB": 512e6, "512m": 512 << 20, "1.5GiB": 3 << 29, "2g": 2 << 30, "1TB": 1e12,
		"64KiB": 64 << 10, "100b": 100, "100": 100, "80%": 800 << 20, " 100 % ": all, "OFF": 0, "none": 0, "0": 0,
	} {
		if got, err := size(text, all); err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "0%", "-1%", "101%", "NaN%", "lots", "-1", "1e30", "inf", "NaN", "MiB", "1 2", "5PiB"} {
		if got, err := size(text, all); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
	if got, err := size("80%", 0); err == nil || !strings.Contains(err.Error(), "give a size") {
		t.Errorf("a share of nobody knows what is %d, %v", got, err)
	}
}

// limitOf is what serve takes for its limit.
func limitOf(t *testing.T, available uint64, args ...string) (limit uint64) {
	t.Helper()
	app := &cli.App{Flags: flags(), Writer: io.Discard, Action: func(c *cli.Context) error {
		m, err := memory(c, available)
		if m != nil {
			limit = m.Limit
		}
		return err
	}}
	if err := app.RunContext(context.Background(), append([]string{"x"}, args...)); err != nil {
		t.Fatal(err)
	}
	return limit
}

func TestMemoryLimit(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	const all = 1000 << 20
	for _, test := range []struct {
		available uint64
		args      string
		want      uint64
	}{
		{all, "", 800 << 20},
		{10 << 20, "", 8 << 20}, // too little, but there is no more
		{0, "", 0},
		{all, "--memory-limit 64MiB", 64 << 20},
		{all, "--memory-limit 50%", 500 << 20},
		{all, "--memory-limit off", 0},
		{all, "--memory-limit 0", 0},
	} {
		if got := limitOf(t, test.available, strings.Fields(test.args)...); got != test.want {
			t.Errorf("%q of %d: %d, want %d", test.args, test.available, got, test.want)
		}
	}
	t.Setenv("GOMEMLIMIT", "200MiB")
	if got := limitOf(t, all); got != 200<<20 {
		t.Errorf("with GOMEMLIMIT it is %d", got)
	}
	t.Setenv("TUNNEL_MEMORY_LIMIT", "300MiB")
	if got := limitOf(t, all); got != 300<<20 {
		t.Errorf("with TUNNEL_MEMORY_LIMIT it is %d", got)
	}
	container := fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("536870912\n")},
	}
	t.Setenv("TUNNEL_MEMORY_LIMIT", "75%")
	if got := limitOf(t, pace.Available(container)); got != 384<<20 {
		t.Errorf("75%% of a container of 512 MiB is %d", got)
	}
}
