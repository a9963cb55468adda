package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// defaultProbe is how long the owner of a live name waits for it.
	defaultProbe = 3 * time.Second
	// defaultMaxHeld is enough for what 10,000 clients drop at once.
	defaultMaxHeld = 50_000
	// endedTime is how long it is told that a route's time is over. Such names count as
	// held ones, and are free to anybody.
	endedTime = 24 * time.Hour
)

// Memory is a [Registry] in this process's memory: its names and holds end
// with the process. The zero value is ready to use. What it keeps is one entry
// for each name that is bound or held, or whose route ended of late; a hold that has passed keeps nothing, and
// there are at most MaxHeld holds.
type Memory struct {
	// Probe is how long Bind waits for Route.Alive before it takes silence for
	// an answer. Default 3 s.
	Probe time.Duration
	// MaxHeld bounds the names that are held at once, of about 700 bytes each, and
	// half of it those of one Route.Group. Above, the oldest hold ends before its
	// time: one group that drops names in a loop loses its own, and leaves half to
	// all others; two that do can end everybody's. Default 50,000.
	MaxHeld int

	mu      sync.RWMutex // guards the following
	names   map[string]*entry
	held    queue            // all
	grouped map[string]queue // by group; none is empty
}

// entry is who has a name. It is never changed: a name that changes its state
// gets another entry, so that an entry still found in Memory.names is as it was.
type entry struct {
	route *Route // where held, no more than the name and whose it is
	held  *hold  // nil while bound
}

// hold keeps a name for its owner.
type hold struct {
	until   time.Time
	silent  bool // the client had been silent
	timer   *time.Timer
	place   place         // in Memory.held and Memory.grouped
	changed chan struct{} // closed when the hold is over, for whatever reason
}

// Bind implements [Registry]. It asks Route.Alive once at most: where the dead
// route's name went to a live one meanwhile, that one keeps it.
func (m *Memory) Bind(ctx context.Context, r *Route) (Release, error) {
	var dead *entry
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("bind %s: %w", r.Name, err)
		}
		release, living := m.claim(r, dead)
		if release != nil {
			if living != nil && living.route.Lost != nil {
				living.route.Lost()
			}
			return release, nil
		}
		if living != nil && r.before(living.route) {
			return nil, fmt.Errorf("bind %s: %w", r.Name, ErrNewer)
		}
		if living == nil || dead != nil || m.alive(ctx, living.route) {
			return nil, fmt.Errorf("bind %s: %w", r.Name, ErrTaken)
		}
		dead = living
	}
}

// claim gives r its name where that is free, held for r's owner, or bound by dead or
// by an earlier generation. Otherwise release is nil, and living is the entry whose
// route r's owner may ask for a sign of life, if it is one, or a later generation's;
// with a release it is the one that r replaced.
func (m *Memory) claim(r *Route, dead *entry) (release Release, living *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.names[r.Name]
	switch {
	case e == nil:
	case e.route.over():
		if e.held != nil {
			m.unhold(e)
		}
	case e.route.Owner != r.Owner:
		return nil, nil
	case r.before(e.route):
		return nil, e
	case e.held != nil:
		m.unhold(e)
	case e != dead && !e.route.before(r):
		return nil, e
	default:
		living = e
	}
	if m.names == nil {
		m.names = make(map[string]*entry)
	}
	bound := &entry{route: r}
	m.names[r.Name] = bound
	return func(d time.Duration) { m.release(bound, d) }, living
}

// alive asks r for a sign of life. What it says counts only while ctx lasts.
func (m *Memory) alive(ctx context.Context, r *Route) bool {
	if r.Alive == nil {
		return true
	}
	probe := m.Probe
	if probe <= 0 {
		probe = defaultProbe
	}
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	return r.Alive(ctx)
}

func (m *Memory) release(bound *entry, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := bound.route.Name
	if m.names[name] != bound {
		return
	}
	if bound.route.over() {
		d = endedTime
	}
	if d <= 0 {
		delete(m.names, name)
		return
	}
	h := &hold{until: time.Now().Add(d), changed: make(chan struct{})}
	h.silent = bound.route.Silent != nil && bound.route.Silent()
	held := &entry{route: &Route{Name: name, Owner: bound.route.Owner, Group: bound.route.group(), Kind: bound.route.Kind, Generation: bound.route.Generation, Ends: bound.route.Ends}, held: h}
	// The timer counts monotonic time: a clock that is set moves no hold.
	h.timer = time.AfterFunc(d, func() { m.expire(held) })
	m.names[name] = held
	m.hold(held)
}

func (m *Memory) expire(held *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[held.route.Name] == held {
		m.free(held)
	}
}

// Lookup implements [Registry]. It does not look at ctx: it never waits.
func (m *Memory) Lookup(_ context.Context, name string) (*Route, error) {
	m.mu.RLock()
	e := m.names[name]
	m.mu.RUnlock()
	switch {
	case e == nil:
		return nil, fmt.Errorf("lookup %s: %w", name, ErrUnknown)
	case e.route.over():
		return nil, fmt.Errorf("lookup %s: %w", name, ErrEnded)
	case e.held != nil:
		return nil, &OfflineError{Name: name, Kind: e.route.Kind, Silent: e.held.silent, Changed: e.held.changed}
	}
	return e.route, nil
}

// List implements [Registry]. Its error is always nil.
func (m *Memory) List(context.Context) ([]Info, error) {
	m.mu.RLock()
	infos := make([]Info, 0, len(m.names))
	for name, e := range m.names {
		if e.route.over() {
			continue
		}
		info := Info{Name: name, Owner: e.route.Owner, Kind: e.route.Kind, Online: e.held == nil}
		if e.held != nil {
			info.HeldUntil = e.held.until
		}
		infos = append(infos, info)
	}
	m.mu.RUnlock()
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}
