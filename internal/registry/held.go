package registry

import "container/list"

// queue has holds, as *entry, in the order in which they began.
type queue struct{ *list.List }

// place is where a hold stands in both queues that it is in.
type place struct{ all, grouped *list.Element }

func (r *Route) group() string {
	if r.Group == "" {
		return r.Owner
	}
	return r.Group
}

// hold counts e, and ends the oldest hold where that makes one too many: of the
// same group, or of all. The caller holds mu.
func (m *Memory) hold(e *entry) {
	group, most := e.route.Group, m.MaxHeld
	if most <= 0 {
		most = defaultMaxHeld
	}
	if m.held.List == nil {
		m.held.List, m.grouped = list.New(), make(map[string]queue)
	}
	if m.grouped[group].List == nil {
		m.grouped[group] = queue{list.New()}
	}
	e.held.place = place{m.held.PushBack(e), m.grouped[group].PushBack(e)}
	if m.grouped[group].Len() > max(most/2, 1) {
		m.free(m.grouped[group].oldest())
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
	own := m.grouped[e.route.Group]
	if own.Remove(e.held.place.grouped); own.Len() == 0 {
		delete(m.grouped, e.route.Group)
	}
	e.held.timer.Stop()
	close(e.held.changed)
}
