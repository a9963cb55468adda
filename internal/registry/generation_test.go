package registry

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func generation(n uint64) *Route {
	r := route("app", "ann", always(true))
	r.Generation = n
	return r
}

// TestGenerationTakesOver: a later generation has the name at once, and the one that had
// it is told and cannot have it back.
func TestGenerationTakesOver(t *testing.T) {
	m := new(Memory)
	first, told := generation(7), 0
	first.Lost = func() { told++ }
	release := bind(t, m, first)
	second := generation(8)
	bind(t, m, second)
	if told != 1 {
		t.Errorf("the first was told %d times", told)
	}
	release(time.Hour) // late, of what is another's now
	checkLookup(t, m, second)
	if _, err := m.Bind(t.Context(), generation(7)); !errors.Is(err, ErrNewer) || !errors.Is(err, ErrTaken) {
		t.Errorf("the first again: %v", err)
	}
	checkTaken(t, m, generation(8)) // it lives
	checkTaken(t, m, generation(0))
	bob := generation(9)
	bob.Owner = "bob"
	checkTaken(t, m, bob)
	checkLookup(t, m, second)
}

// TestGenerationWhileDead: an earlier one cannot have what a later one's silence leaves.
func TestGenerationWhileDead(t *testing.T) {
	m := new(Memory)
	dead := generation(8)
	dead.Alive = always(false)
	bind(t, m, dead)
	checkTaken(t, m, generation(7))
	bind(t, m, generation(8))
}

// TestGenerationHeld: neither can it have what is held for a later one, until the hold
// has passed. A client without one may.
func TestGenerationHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(Memory)
		bind(t, m, generation(8))(time.Minute)
		checkTaken(t, m, generation(7))
		bind(t, m, generation(0))(0)
		bind(t, m, generation(8))(time.Minute)
		time.Sleep(time.Minute)
		synctest.Wait()
		bind(t, m, generation(7))
	})
}

// TestGenerationOfOne: who has none is not to be taken over by who has one.
func TestGenerationOfOne(t *testing.T) {
	m := new(Memory)
	bind(t, m, generation(0))
	checkTaken(t, m, generation(9))
}
