package pace

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

func TestLevel(t *testing.T) {
	for _, test := range []struct {
		live, held uint64 // in percent of the limit
		want       Level
	}{
		{0, 0, Calm},
		{59, 59, Calm},
		{59, 79, Calm}, // garbage
		{60, 60, Full},
		{30, 80, Full}, // more than can be garbage
		{70, 70, Tight},
		{30, 90, Tight},
		{80, 80, Brim},
		{30, 100, Brim},
		{300, 300, Brim},
	} {
		m := &Memory{Limit: 100 << 20, Read: func() Use { return Use{Live: test.live << 20, Held: test.held << 20} }}
		if got := m.Level(); got != test.want || m.Full() != (test.want >= Full) {
			t.Errorf("%d live, %d held: level %d, want %d", test.live, test.held, got, test.want)
		}
	}
}

func TestWithoutLimit(t *testing.T) {
	for _, m := range []*Memory{nil, {}, {Read: func() Use { return Use{Live: math.MaxUint64} }}} {
		m.Apply()()
		if m.Level() != Calm || m.Full() {
			t.Error("without a limit there is one")
		}
	}
}

// TestLevelReadsSeldom: a reading counts for a while, also where the clock is set.
func TestLevelReadsSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		m := &Memory{Limit: 100, Read: func() Use { reads++; return Use{Live: uint64(reads) * 60} }}
		for range 3 {
			if m.Level() != Full {
				t.Error("not the first reading")
			}
		}
		time.Sleep(fresh)
		if m.Level() != Brim || reads != 2 {
			t.Errorf("%d readings", reads)
		}
		m.read.Store(time.Now().Add(time.Hour).UnixNano()) // the clock was set back
		if m.Level(); reads != 3 {
			t.Errorf("%d readings after the clock was set", reads)
		}
	})
}

// TestRefresh collects seldom, and more seldom where it takes long.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		collections, takes, live := 0, time.Duration(0), uint64(70)
		m := &Memory{
			Limit: 100, Read: func() Use { return Use{Live: live} },
			Collect: func() { collections++; time.Sleep(takes) },
		}
		expect := func(want int) {
			t.Helper()
			if m.Refresh(); collections != want {
				t.Errorf("%d collections, want %d", collections, want)
			}
		}
		expect(1)
		expect(1)
		time.Sleep(outdated)
		takes = time.Second
		expect(2)
		time.Sleep(spare*time.Second - 1)
		expect(2)
		time.Sleep(time.Nanosecond)
		expect(3)
		live = 80
		expect(4)
		expect(5)
	})
}

// TestRuntimeUse: what is in use counts, and what was thrown away does not once
// it is collected.
func TestRuntimeUse(t *testing.T) {
	m := &Memory{Limit: 1 << 30}
	m.collect(0)
	before := runtimeUse()
	kept := make([][]byte, 64)
	for i := range kept {
		kept[i] = make([]byte, 1<<20)
	}
	if u := runtimeUse(); u.Held < before.Held+60<<20 {
		t.Errorf("64 MiB more, but it was %d and is %d", before.Held, u.Held)
	}
	m.collect(0)
	if u := runtimeUse(); u.Live < before.Live+60<<20 || u.Live > u.Held {
		t.Errorf("64 MiB more live, but it was %d and is %d of %d", before.Live, u.Live, u.Held)
	}
	clear(kept)
	m.collect(0)
	if u := runtimeUse(); u.Live > before.Live+8<<20 || u.Held > before.Held+16<<20 {
		t.Errorf("all given back, but it was %+v and is %+v", before, u)
	}
	if used := m.Used(); used == 0 {
		t.Error("nothing is used")
	}
}

func TestApply(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	undo := (&Memory{Limit: 1 << 30}).Apply()
	if got := debug.SetMemoryLimit(-1); got >= 1<<30/10*8 || got <= 1<<30/10*7 {
		t.Errorf("GOMEMLIMIT is %d: not between Tight and Brim", got)
	}
	undo()
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("GOMEMLIMIT is %d after it, want %d", got, before)
	}
}

func TestAvailable(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	const meminfo = "MemTotal:        8000000 kB\nMemFree:         1 kB\n"
	const total = 8_000_000 << 10
	for name, test := range map[string]struct {
		files fstest.MapFS
		want  uint64
	}{
		"nothing is known": {nil, 0},
		"a machine":        {fstest.MapFS{"proc/meminfo": file(meminfo)}, total},
		"no limit": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/user.slice\n"),
			"sys/fs/cgroup/user.slice/memory.max": file("max\n"),
		}, total},
		"a container": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("536870912\n"),
		}, 512 << 20},
		"a service in a slice": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/system.slice/tunnel.service\n"),
			"sys/fs/cgroup/system.slice/tunnel.service/memory.max":  file("max\n"),
			"sys/fs/cgroup/system.slice/tunnel.service/memory.high": file("2000\n"),
			"sys/fs/cgroup/system.slice/memory.max":                 file("1000\n"),
		}, 1000},
		"version 1": {fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("9:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":            file("268435456\n"),
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 256 << 20},
		"garbage": {fstest.MapFS{"proc/meminfo": file("MemTotal: x\n"), "proc/self/cgroup": file("0\n:::\n")}, 0},
	} {
		if got := Available(test.files); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
