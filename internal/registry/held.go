package registry

import "container/list"

// queue has holds, as *entry, in the order in which they began.
type queue struct{ *list.List }

// place is where a hold stands in both queues that it is in.
type place struct{ all, owned *list.Element }

// hold counts e, and ends the oldest hold where that makes one too many: of the
// same owner, or of all. The caller holds mu.
func (m *Memory) hold(e *entry) {
	owner, most := e.route.Owner, m.MaxHeld
	if most <= 0 {
		most = defaultMaxHeld
	}
	if m.held.List == nil {
		m.held.List, m.owned = list.New(), make(map[string]queue)
	}
	if m.owned[owner].List == nil {
		m.owned[owner] = queue{list.New()}
	}
	e.held.place = place{m.held.PushBack(e), m.owned[owner].PushBack(e)}
	if m.owned[owner].Len() > max(most/2, 1) {
		m.free(m.owned[owner].oldest())
	}
	if m.held.Len() > most {
		m.free(m.held.oldest())
	}
}

func (q queue) oldest() *entry { return q.Front().Value.(*entry) }

// free ends the hold of e, which nobody has then. The caller holds mu.
func (m *Memory) free(e *entry) {
	delete(m.names, e.route.Name)
	m.unhold(e)
}

// unhold ends the hold of e and wakes who waits for it. The caller holds mu.
func (m *Memory) unhold(e *entry) {
	m.held.Remove(e.held.place.all)
	own := m.owned[e.route.Owner]
	if own.Remove(e.held.place.owned); own.Len() == 0 {
		delete(m.owned, e.route.Owner)
	}
	e.held.timer.Stop()
	close(e.held.changed)
}
