package registry

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/pkg/protocol"
)

var _ Registry = (*Memory)(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func route(name, owner string, alive func(context.Context) bool) *Route {
	return &Route{Name: name, Owner: owner, Kind: protocol.KindHTTP, Alive: alive}
}

func always(answer bool) func(context.Context) bool {
	return func(context.Context) bool { return answer }
}

// silent is a client that is gone: no answer comes.
func silent(ctx context.Context) bool {
	<-ctx.Done()
	return false
}

func bind(t *testing.T, m *Memory, r *Route) Release {
	t.Helper()
	release, err := m.Bind(t.Context(), r)
	if err != nil {
		t.Fatalf("Bind: %v", err)
	}
	checkLookup(t, m, r)
	return release
}

func checkTaken(t *testing.T, m *Memory, r *Route) {
	t.Helper()
	release, err := m.Bind(t.Context(), r)
	if !errors.Is(err, ErrTaken) || release != nil {
		t.Fatalf("Bind by %s: release given %v, error %v; want ErrTaken", r.Owner, release != nil, err)
	}
}

func checkLookup(t *testing.T, m *Memory, want *Route) {
	t.Helper()
	if got, err := m.Lookup(t.Context(), want.Name); got != want || err != nil {
		t.Fatalf("Lookup: %v, %v; want the route that was bound", got, err)
	}
}

func checkUnknown(t *testing.T, m *Memory, name string) {
	t.Helper()
	if r, err := m.Lookup(t.Context(), name); r != nil || !errors.Is(err, ErrUnknown) {
		t.Fatalf("Lookup: %v, %v; want ErrUnknown", r, err)
	}
}

func offline(t *testing.T, m *Memory, name string) <-chan struct{} {
	t.Helper()
	_, err := m.Lookup(t.Context(), name)
	var off *OfflineError
	if !errors.As(err, &off) || off.Name != name {
		t.Fatalf("Lookup: %v; want an OfflineError of %s", err, name)
	}
	return off.Changed
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestBindAndRelease(t *testing.T) {
	m := new(Memory)
	checkUnknown(t, m, "app")
	a := route("app", "ann", nil)
	release := bind(t, m, a)

	checkTaken(t, m, route("app", "bob", nil))
	checkTaken(t, m, route("app", "ann", nil)) // without Alive, a route lives
	checkTaken(t, m, route("app", "bob", always(false)))
	checkLookup(t, m, a)
	bind(t, m, route("other", "bob", nil))

	release(0)
	checkUnknown(t, m, "app")
	b := route("app", "bob", nil)
	bind(t, m, b)

	// The same release again must not touch the new owner's route.
	release(0)
	release(time.Hour)
	checkLookup(t, m, b)
}

func TestHoldKeepsStrangersOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		release := bind(t, m, route("app", "ann", nil))
		release(time.Minute)
		release(0) // only the first call counts
		changed := offline(t, m, "app")

		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		checkTaken(t, m, route("app", "bob", nil))
		offline(t, m, "app")
		if closed(changed) {
			t.Fatal("Changed was closed although nothing changed")
		}

		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !closed(changed) {
			t.Fatal("Changed was not closed when the hold had passed")
		}
		checkUnknown(t, m, "app")
		if n := len(m.names); n != 0 {
			t.Fatalf("%d entries are kept of a name that is free", n)
		}
		bind(t, m, route("app", "bob", nil))
	})
}

func TestHeldNameGoesToItsOwnerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		start := time.Now()
		release := bind(t, m, route("app", "ann", always(true)))
		release(time.Minute)
		changed := offline(t, m, "app")

		// Whoever asks the client that is known to be gone would wait in vain.
		back := route("app", "ann", nil)
		again := bind(t, m, back)
		if d := time.Since(start); d != 0 {
			t.Fatalf("the owner waited %v", d)
		}
		if !closed(changed) {
			t.Fatal("Changed was not closed when the name was bound again")
		}

		// The end of the first hold is not the end of the new route, nor of a second hold.
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		checkLookup(t, m, back)
		again(time.Minute)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		checkTaken(t, m, route("app", "bob", nil))
	})
}

func TestReleaseWithoutHoldFreesAndWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		bind(t, m, route("app", "ann", nil))(time.Minute)
		woken := make(chan error, 1)
		changed := offline(t, m, "app")
		go func() {
			<-changed
			_, err := m.Lookup(t.Context(), "app")
			woken <- err
		}()
		synctest.Wait()
		release := bind(t, m, route("app", "ann", nil))
		synctest.Wait()
		if err := <-woken; err != nil {
			t.Fatalf("the waiter looked up and got %v", err)
		}
		release(0)
		checkUnknown(t, m, "app")
		bind(t, m, route("app", "bob", nil))
		time.Sleep(2 * time.Minute) // the hold of before has no more say
	})
}

// TestLateRelease is R32: the old session's close arrives after the takeover.
func TestLateRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		late := bind(t, m, route("app", "ann", silent))
		start := time.Now()
		b := route("app", "ann", always(true))
		bind(t, m, b)
		if d := time.Since(start); d != defaultProbe {
			t.Fatalf("the old client was asked for %v, want %v", d, defaultProbe)
		}
		late(0)
		checkLookup(t, m, b)
		late(time.Minute)
		checkLookup(t, m, b)
		checkTaken(t, m, route("app", "ann", nil))

		late = bind(t, m, route("net", "ann", nil))
		late(time.Second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		c := route("net", "bob", nil)
		release := bind(t, m, c)
		late(0)
		checkLookup(t, m, c)

		// A hold whose timer had fired when its owner came back.
		release(time.Second)
		held := m.names["net"]
		d := route("net", "bob", nil)
		bind(t, m, d)
		m.expire(held)
		checkLookup(t, m, d)
	})
}

func TestOwnLiveNameStaysTaken(t *testing.T) {
	m := &Memory{Probe: time.Hour}
	a := route("app", "ann", always(true))
	bind(t, m, a)
	checkTaken(t, m, route("app", "ann", nil))
	checkLookup(t, m, a)
}

func TestStrangerIsRefusedUnasked(t *testing.T) {
	m := new(Memory)
	a := route("app", "ann", func(context.Context) bool {
		t.Error("ann's client was asked on a stranger's behalf")
		return false
	})
	bind(t, m, a)
	checkTaken(t, m, route("app", "bob", nil))
	checkLookup(t, m, a)
}

// TestHoldThatIsOverIsForgotten has names come and go under long holds. The
// runtime keeps some stopped timers for a while, but not most.
func TestHoldThatIsOverIsForgotten(t *testing.T) {
	const n = 1000
	m := new(Memory)
	var holds [n]weak.Pointer[entry]
	for i := range holds {
		release := bind(t, m, route("app", "ann", nil))
		release(time.Hour)
		holds[i] = weak.Make(m.names["app"])
	}
	runtime.GC()
	kept := 0
	for _, h := range holds {
		if h.Value() != nil {
			kept++
		}
	}
	if kept > n/2 {
		t.Errorf("%d of %d holds are kept in memory after the name was bound again", kept, n)
	}
}

func TestBindCancelled(t *testing.T) {
	m := &Memory{Probe: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	a := route("app", "ann", func(c context.Context) bool {
		cancel()
		return silent(c)
	})
	bind(t, m, a)
	for range 2 { // cancelled while asking, cancelled before
		if _, err := m.Bind(ctx, route("app", "ann", nil)); !errors.Is(err, context.Canceled) {
			t.Fatalf("Bind: %v, want context.Canceled", err)
		}
		checkLookup(t, m, a) // an answer that was not waited for says nothing
	}
	if _, err := m.Bind(ctx, route("free", "ann", nil)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Bind of a free name: %v, want context.Canceled", err)
	}
	checkUnknown(t, m, "free")
}

// TestChangedWhileAsking has the entry change while its Alive is running.
func TestChangedWhileAsking(t *testing.T) {
	thief := route("app", "bob", nil)
	tests := []struct {
		name   string
		change func(t *testing.T, m *Memory, release Release)
		taken  bool
	}{
		{"released", func(_ *testing.T, _ *Memory, release Release) { release(0) }, false},
		{"held", func(_ *testing.T, _ *Memory, release Release) { release(time.Hour) }, false},
		{"bound by a stranger", func(t *testing.T, m *Memory, release Release) {
			release(0)
			bind(t, m, thief)
		}, true},
		{"bound by the owner", func(t *testing.T, m *Memory, release Release) {
			release(0)
			bind(t, m, route("app", "ann", func(context.Context) bool {
				t.Error("one Bind asked twice")
				return false
			}))
		}, true},
	}
	for _, tt := range tests {
		for _, answer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, alive %v", tt.name, answer), func(t *testing.T) {
				m := new(Memory)
				var release Release
				release = bind(t, m, route("app", "ann", func(context.Context) bool {
					tt.change(t, m, release)
					return answer
				}))
				r := route("app", "ann", nil)
				switch {
				case tt.taken || answer:
					checkTaken(t, m, r)
				default:
					bind(t, m, r)
				}
			})
		}
	}
}

// TestManyBindsAskOnceEach lets many sessions of one owner want a name whose
// client is gone: one gets it, and nobody asks twice.
func TestManyBindsAskOnceEach(t *testing.T) {
	const n = 100
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		var asked atomic.Int32
		bind(t, m, route("app", "ann", func(ctx context.Context) bool {
			asked.Add(1)
			return silent(ctx)
		}))
		start := time.Now()
		var won atomic.Pointer[Route]
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				r := route("app", "ann", always(false))
				switch _, err := m.Bind(t.Context(), r); {
				case err == nil && !won.CompareAndSwap(nil, r):
					t.Error("two Binds got the name")
				case err != nil && !errors.Is(err, ErrTaken):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		checkLookup(t, m, won.Load())
		if a := asked.Load(); a != n {
			t.Errorf("%d questions by %d Binds", a, n)
		}
		if d := time.Since(start); d != defaultProbe {
			t.Errorf("took %v, want %v", d, defaultProbe)
		}
	})
}

// TestRace is R31: at every moment one name has one owner at most, and each
// winner is seen by Lookup. Half of the releases hold, and each owner has two
// sessions, so that holds, takeovers and questions take part.
func TestRace(t *testing.T) {
	const rounds = 5000 // won by each owner, at least
	m := new(Memory)
	var holder atomic.Pointer[Route] // who believes to have the name
	var wins [2]atomic.Int32
	var wg sync.WaitGroup
	for session := range 4 {
		owner := session % 2
		wg.Go(func() {
			for wins[0].Load() < rounds || wins[1].Load() < rounds {
				var gone atomic.Bool
				r := route("app", fmt.Sprint("owner", owner), func(context.Context) bool { return !gone.Load() })
				release, err := m.Bind(t.Context(), r)
				if errors.Is(err, ErrTaken) {
					if owner != session {
						bystand(t, m)
					}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !holder.CompareAndSwap(nil, r) {
					t.Error("two owners at once")
				}
				if got, err := m.Lookup(t.Context(), "app"); got != r || err != nil {
					t.Errorf("the winner looked up %v, %v", got, err)
				}
				n := wins[owner].Add(1)
				if !holder.CompareAndSwap(r, nil) {
					t.Error("the name was lost while its client was alive")
				}
				gone.Store(true) // from here on another session of this owner may take over
				runtime.Gosched()
				release(time.Duration(n%2) * time.Microsecond) // late, where it did
			}
		})
	}
	wg.Wait()
}

// bystand checks what a visitor may see: a route, a client that dropped, or nothing.
func bystand(t *testing.T, m *Memory) {
	r, err := m.Lookup(t.Context(), "app")
	var off *OfflineError
	if r == nil && !errors.Is(err, ErrUnknown) && !errors.As(err, &off) {
		t.Errorf("Lookup: %v", err)
	}
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		if infos, err := m.List(t.Context()); len(infos) != 0 || err != nil {
			t.Fatalf("List of nothing: %v, %v", infos, err)
		}
		bind(t, m, route("b", "bob", nil))
		release := bind(t, m, route("c", "ann", nil))
		bind(t, m, route("a", "ann", nil))
		release(time.Minute)
		want := []Info{
			{Name: "a", Owner: "ann", Kind: protocol.KindHTTP, Online: true},
			{Name: "b", Owner: "bob", Kind: protocol.KindHTTP, Online: true},
			{Name: "c", Owner: "ann", Kind: protocol.KindHTTP, HeldUntil: time.Now().Add(time.Minute)},
		}
		got, err := m.List(t.Context())
		same := func(a, b Info) bool {
			held := a.HeldUntil.Equal(b.HeldUntil)
			a.HeldUntil, b.HeldUntil = time.Time{}, time.Time{}
			return held && a == b
		}
		if err != nil || !slices.EqualFunc(got, want, same) {
			t.Fatalf("List: %v, %v; want %v", got, err, want)
		}
	})
}

func TestLookupDoesNotAllocate(t *testing.T) {
	m := new(Memory)
	bind(t, m, route("app", "ann", nil))
	if n := testing.AllocsPerRun(100, func() { m.Lookup(t.Context(), "app") }); n != 0 {
		t.Errorf("%v allocations in a Lookup", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	m := new(Memory)
	names := make([]string, 10000)
	for i := range names {
		names[i] = fmt.Sprintf("app-%d", i)
		if _, err := m.Bind(b.Context(), route(names[i], "ann", nil)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		for i := 0; pb.Next(); i++ {
			if _, err := m.Lookup(ctx, names[i%len(names)]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// Who loses a name by silence is told, once, and a live one is not.
func TestLost(t *testing.T) {
	m := &Memory{}
	lost, alive := 0, true
	first := &Route{Name: "demo", Owner: "a", Alive: func(context.Context) bool { return alive }, Lost: func() { lost++ }}
	if _, err := m.Bind(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Bind(t.Context(), &Route{Name: "demo", Owner: "a"}); !errors.Is(err, ErrTaken) || lost != 0 {
		t.Fatalf("alive: %v, lost %d times", err, lost)
	}
	alive = false
	release, err := m.Bind(t.Context(), &Route{Name: "demo", Owner: "a"})
	if err != nil || lost != 1 {
		t.Fatalf("silent: %v, lost %d times", err, lost)
	}
	release(0)
	if lost != 1 {
		t.Errorf("lost %d times in the end", lost)
	}
}
