package registry

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// check compares the queues with what is held.
func (m *Memory) check(t *testing.T) (held int) {
	t.Helper()
	grouped := make(map[string]int)
	for _, e := range m.names {
		if e.held != nil {
			held++
			grouped[e.route.Group]++
		}
	}
	if m.held.List != nil && m.held.Len() != held || len(m.grouped) != len(grouped) {
		t.Fatalf("%d held by %d groups are counted as %d by %d", held, len(grouped), m.held.Len(), len(m.grouped))
	}
	for group, n := range grouped {
		if m.grouped[group].Len() != n {
			t.Fatalf("%d held by %s are counted as %d", n, group, m.grouped[group].Len())
		}
	}
	return held
}

// S15: who claims and drops names in a loop keeps a bounded number of them, and
// loses his own oldest; a neighbour's hold stays.
func TestHeldOfOneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Memory{MaxHeld: 20}
		bind(t, m, route("neighbour", "ann", nil))(time.Hour)
		for n := range 1000 {
			bind(t, m, route(fmt.Sprint("name-", n), "bob", nil))(time.Hour)
			if held := m.check(t); held != min(n+2, 11) {
				t.Fatalf("%d names are held after %d of bob's were dropped", held, n+1)
			}
		}
		checkTaken(t, m, route("neighbour", "bob", nil))
		for n := range 1000 {
			if n < 990 {
				checkUnknown(t, m, fmt.Sprint("name-", n))
				continue
			}
			checkTaken(t, m, route(fmt.Sprint("name-", n), "ann", nil))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if held := m.check(t); held != 0 || len(m.names) != 0 {
			t.Fatalf("%d names are held, %d kept", held, len(m.names))
		}
	})
}

// S15: who has any number of owners in one group loses their oldest, and leaves
// half to the others, even where those have held theirs longer.
func TestHeldOfOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Memory{MaxHeld: 20}
		for n := range 15 {
			bind(t, m, route(fmt.Sprint("ann-", n), "ann", nil))(time.Hour)
			m.check(t)
		}
		for n := range 1000 {
			r := route(fmt.Sprint("name-", n), fmt.Sprint("stranger-", n), nil)
			r.Group = "strangers"
			bind(t, m, r)(time.Hour)
			if held := m.check(t); held != min(10+n+1, 20) {
				t.Fatalf("%d names are held after %d of strangers were dropped", held, n+1)
			}
		}
		for n := range 10 {
			checkTaken(t, m, route(fmt.Sprint("ann-", 5+n), "bob", nil))
			name := fmt.Sprint("name-", 990+n)
			checkTaken(t, m, route(name, "strangers", nil)) // the group is no owner
			bind(t, m, route(name, fmt.Sprint("stranger-", 990+n), nil))
			m.check(t)
		}
	})
}

// However many owners there are, the number of held names has a bound, and who
// waits for one that goes is woken.
func TestHeldInAll(t *testing.T) {
	for _, most := range []int{0, 1, 20} {
		synctest.Test(t, func(t *testing.T) {
			m := &Memory{MaxHeld: most}
			want := most
			if most == 0 {
				want = defaultMaxHeld
			}
			bind(t, m, route("first", "ann", nil))(time.Hour)
			changed := offline(t, m, "first")
			for n := range want + 10 {
				bind(t, m, route(fmt.Sprint("name-", n), fmt.Sprint("owner-", n), nil))(time.Hour)
			}
			if held := m.check(t); held != want {
				t.Fatalf("%d names are held, want %d", held, want)
			}
			if !closed(changed) {
				t.Error("Changed was not closed when the hold ended")
			}
			checkUnknown(t, m, "first")
			newest := fmt.Sprint("name-", want+9)
			offline(t, m, newest)
			bind(t, m, route(newest, fmt.Sprint("owner-", want+9), nil)) // goes back to its owner
			m.check(t)
		})
	}
}

// R9: strangers may claim the names of a client that sleeps when the hold has
// passed, not before, and its late end changes nothing then. Time is the
// process's: R35, a clock that is set moves no hold.
func TestHoldOfSleeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		sleeper := bind(t, m, route("app", "ann", silent))
		time.Sleep(45 * time.Second) // until it is noticed
		sleeper(time.Minute)
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		checkTaken(t, m, route("app", "bob", nil))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		b := route("app", "bob", nil)
		bind(t, m, b)
		sleeper(time.Minute)
		checkTaken(t, m, route("app", "ann", nil))
		checkLookup(t, m, b)
	})
}

// A route whose time is over is not to be had from that moment on, whoever has given it
// back or not. It is told for a day, and its name is anybody's.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		ending := func(name string) *Route {
			r := route(name, "ann", nil)
			r.Ends = time.Now().Add(time.Hour)
			return r
		}
		late, late2 := bind(t, m, ending("late")), bind(t, m, ending("taken"))
		bind(t, m, ending("early"))(0)
		bind(t, m, ending("held"))(2 * time.Hour)
		checkUnknown(t, m, "early")
		time.Sleep(time.Hour - 1)
		if _, err := m.Lookup(t.Context(), "late"); err != nil {
			t.Error(err)
		}
		checkTaken(t, m, route("late", "bob", nil))
		time.Sleep(time.Nanosecond)
		for _, name := range []string{"late", "taken", "held"} {
			if _, err := m.Lookup(t.Context(), name); !errors.Is(err, ErrEnded) {
				t.Errorf("%s: %v", name, err)
			}
		}
		bind(t, m, route("taken", "bob", nil))
		bind(t, m, route("held", "bob", nil))
		late(0)
		late2(0)
		if r, err := m.Lookup(t.Context(), "taken"); err != nil || r.Owner != "bob" {
			t.Errorf("the late release takes the name away: %v", err)
		}
		if _, err := m.Lookup(t.Context(), "late"); !errors.Is(err, ErrEnded) {
			t.Error(err)
		}
		if n := m.check(t); n != 1 {
			t.Errorf("%d are held", n)
		}
		if all, _ := m.List(t.Context()); len(all) != 2 {
			t.Errorf("listed: %v", all)
		}
		bind(t, m, route("late", "bob", nil))(0)
		checkUnknown(t, m, "late")
		bind(t, m, ending("again"))(0)
		r := bind(t, m, ending("last"))
		time.Sleep(time.Hour)
		r(0)
		time.Sleep(endedTime)
		synctest.Wait()
		checkUnknown(t, m, "last")
		if n := m.check(t); n != 0 || len(m.names) != 2 {
			t.Errorf("%d are held, %d kept", n, len(m.names))
		}
	})
}
