package mux

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// spared is how much a stream may hold unread, in bytes, and never be reset for it.
const spared = 16 << 10

// Budget bounds what the sessions that share it hold together of what arrived on
// their streams and was not read. Above half of it, windows shrink to their first
// size of 256 KiB as they are read. When it is used up, the stream that holds most
// in the session that holds most is reset, and the next one, until a sixteenth of
// it is free: its reader gets [ErrOverBudget], its peer a reset. So who lets much
// lie pays for it, whoever received the last byte. A stream that holds no more
// than 16 KiB is never reset, which is what the budget may be overrun by: 16 KiB
// for each stream. No session ends because of it.
//
// Beside it, a session has up to 192 KiB of buffers while there is traffic, and
// 192 KiB of answers where its peer takes none.
//
// A nil Budget has no limit and counts nothing.
type Budget struct {
	limit  int64
	used   atomic.Int64
	resets atomic.Int64
	again  atomic.Int64 // how much is to be used before shed is worth another try

	shedding sync.Mutex
	mu       sync.Mutex // guards shares
	// shares are those with streams to look at.
	shares map[*share]struct{}
}

// NewBudget returns a Budget of limit bytes; where that is not positive, it has no
// limit and only counts.
func NewBudget(limit int64) *Budget {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return &Budget{limit: limit, shares: make(map[*share]struct{})}
}

// Used is how many bytes of memory are held, in blocks of 8 KiB.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// Limit is how many bytes may be held; math.MaxInt64 where there is no limit.
func (b *Budget) Limit() int64 {
	if b == nil {
		return math.MaxInt64
	}
	return b.limit
}

// Full reports whether all of it is used.
func (b *Budget) Full() bool { return b != nil && b.used.Load() >= b.limit }

// Resets is how many streams were reset because it was used up.
func (b *Budget) Resets() int64 {
	if b == nil {
		return 0
	}
	return b.resets.Load()
}

// tight reports whether windows are to be small.
func (b *Budget) tight() bool { return b != nil && b.used.Load() > b.limit/2 }

// shed resets streams until a part of the budget is free, or none is left that
// holds more than it is spared. It is called without locks. Who finds that another
// one is at it goes on.
func (b *Budget) shed() {
	if !b.shedding.TryLock() {
		return
	}
	defer b.shedding.Unlock()
	used, step := b.used.Load(), b.limit/64
	if again := b.again.Load(); used < again && again <= used+step {
		return // there was nothing to be had a moment ago
	}
	for b.used.Load() > b.limit-b.limit/16 {
		st := b.largest()
		if st == nil {
			b.again.Store(b.used.Load() + step)
			return
		}
		if st.evict() {
			b.resets.Add(1)
		}
	}
	b.again.Store(0)
}

// largest returns the stream that holds most, of the session that holds most.
func (b *Budget) largest() *stream {
	type holder struct {
		share *share
		held  int64
	}
	var all []holder
	b.mu.Lock()
	for s := range b.shares {
		all = append(all, holder{s, s.held.Load()})
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(x, y holder) int { return cmp.Compare(y.held, x.held) })
	for _, h := range all {
		if st := h.share.largest(); st != nil {
			return st
		}
	}
	return nil
}

// share is what the streams of one session hold of a Budget. It outlives the
// session for as long as they do.
type share struct {
	budget *Budget // nil: nothing is counted
	held   atomic.Int64

	mu      sync.Mutex // guards streams; taken under a stream's mu, and before Budget.mu
	streams map[*stream]struct{}
}

// list notes that st is one to look at: it has held more than it is spared.
func (s *share) list(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) == 0 {
		s.streams = make(map[*stream]struct{})
		s.budget.mu.Lock()
		s.budget.shares[s] = struct{}{}
		s.budget.mu.Unlock()
	}
	s.streams[st] = struct{}{}
}

// unlist notes that st holds nothing, and never will.
func (s *share) unlist(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.streams, st); len(s.streams) == 0 {
		s.streams = nil
		s.budget.mu.Lock()
		delete(s.budget.shares, s)
		s.budget.mu.Unlock()
	}
}

// largest returns the stream that holds most, or nil where none holds more than
// it is spared.
func (s *share) largest() (largest *stream) {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.streams))
	s.mu.Unlock()
	most := spared
	for _, st := range all {
		st.mu.Lock()
		held := int(st.in.blocks) * blockSize
		st.mu.Unlock()
		if held > most {
			largest, most = st, held
		}
	}
	return largest
}

// hold notes that st holds n blocks more, or -n less. It is called under st.mu, and
// reports whether shed is called for.
func (s *share) hold(st *stream, n int32) (over bool) {
	in := &st.in
	in.blocks += n
	if s.budget == nil || n == 0 {
		return false
	}
	s.held.Add(int64(n) * blockSize)
	used := s.budget.used.Add(int64(n) * blockSize)
	if in.blocks*blockSize > spared && !in.listed {
		in.listed = true // and stays so until nothing more can arrive: this is a hot path
		s.list(st)
	}
	return n > 0 && used > s.budget.limit
}
