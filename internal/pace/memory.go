package pace

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"
)

// Level says how near a process is to its memory limit, and so what to refuse.
type Level int32

const (
	// Calm refuses nothing.
	Calm Level = iota
	// Full takes no new work: three fifths of the limit are in use.
	Full
	// Tight takes no new connections, either: seven tenths are.
	Tight
	// Brim ends what is there: four fifths are.
	Brim
)

const (
	// collectAt is the share of the limit, in percent, at which Go collects garbage
	// however little there is of it. It lies above all levels but Brim, or their
	// work would be done by the collector first, with half of the CPU time.
	collectAt = 75
	// garbage is how much of what is held, in percent of the limit, is taken for
	// garbage at most where that is not known yet.
	garbage = 20

	// fresh is how long a reading counts.
	fresh = 10 * time.Millisecond
	// outdated is when the last collection is too long ago to know what is in use.
	outdated = 500 * time.Millisecond
	// spare is how much longer than a collection the pause after it is.
	spare = 10
)

// Use is what a process holds, in bytes.
type Use struct {
	Live uint64 // as of the last collection; what is no heap counts, too
	Held uint64 // garbage included; not what the heap has free
}

// Memory is a limit of what this process may hold. A nil one, and one with a
// Limit of 0, is Calm for ever. Its methods may be called from many goroutines.
type Memory struct {
	Limit uint64 // in bytes; the program's own text comes to it, and the kernel's buffers
	// Read says what is in use. Nil: what the runtime says.
	Read func() Use
	// Collect collects garbage. Nil: runtime.GC.
	Collect func()

	read      atomic.Int64 // when, in Unix nanoseconds
	level     atomic.Int32
	collected atomic.Int64 // when Refresh did, in Unix nanoseconds
	took      atomic.Int64 // so many nanoseconds
}

// Apply has Go collect garbage more eagerly where the limit is near, until undo
// is called. Without a limit it does nothing.
func (m *Memory) Apply() (undo func()) {
	if m == nil || m.Limit == 0 {
		return func() {}
	}
	before := debug.SetMemoryLimit(int64(m.Limit / 100 * collectAt))
	return func() { debug.SetMemoryLimit(before) }
}

// Level is the level of a moment ago.
func (m *Memory) Level() Level {
	if m == nil || m.Limit == 0 {
		return Calm
	}
	now, last := time.Now().UnixNano(), m.read.Load()
	// A clock that was set back makes a reading old, not new for long.
	if age := time.Duration(now - last); (age < 0 || age >= fresh) && m.read.CompareAndSwap(last, now) {
		m.level.Store(int32(m.levelOf(m.use())))
	}
	return Level(m.level.Load())
}

// String is the limit as people write it, "512 MiB", or "none".
func (m *Memory) String() string {
	if m == nil || m.Limit == 0 {
		return "none"
	}
	if n := m.Limit >> 20; n >= 10 {
		return strconv.FormatUint(n, 10) + " MiB"
	}
	return strconv.FormatUint(m.Limit, 10) + " bytes"
}

// Full reports whether new work is to be refused.
func (m *Memory) Full() bool { return m.Level() >= Full }

func (m *Memory) levelOf(u Use) Level {
	used := max(u.Live, u.Held-min(u.Held, m.Limit/100*garbage))
	switch {
	case used >= m.Limit/100*80:
		return Brim
	case used >= m.Limit/100*70:
		return Tight
	case used >= m.Limit/100*60:
		return Full
	}
	return Calm
}

func (m *Memory) use() Use {
	if m.Read != nil {
		return m.Read()
	}
	return runtimeUse()
}

// Refresh collects garbage, so that the level is that of what is in use now: a
// process that refuses its work would allocate too little to have it collected.
// It does so every half second at most, and for a tenth of the time, but always at
// the Brim, where Go collects all the time as it is.
func (m *Memory) Refresh() {
	began := time.Now().UnixNano()
	pause := max(int64(outdated), m.took.Load()*spare)
	if age := began - m.collected.Load(); age >= 0 && age < pause && m.Level() < Brim {
		return
	}
	m.collect(began)
}

func (m *Memory) collect(began int64) {
	if m.Collect != nil {
		m.Collect()
	} else {
		runtime.GC()
	}
	now := time.Now().UnixNano()
	m.took.Store(max(now-began, 0))
	m.collected.Store(now)
	m.read.Store(0)
}

// Used is what is in use, in bytes, as Level sees it.
func (m *Memory) Used() uint64 {
	u := m.use()
	return max(u.Live, u.Held-min(u.Held, m.Limit/100*garbage))
}

func runtimeUse() Use {
	s := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)
	at := func(i int) uint64 { return s[i].Value.Uint64() }
	held := at(0) - at(1) - at(2)
	objects, live := at(3), at(4)
	return Use{Held: held, Live: held - min(held, objects-min(objects, live))}
}
