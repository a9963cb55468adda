package tunnel

import (
	"context"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// checkShare checks what o asks for of who may visit.
func (o *Options) checkShare() error {
	if o.Share != nil && o.Private {
		return configError("a private endpoint has no visitors: leave Share out")
	}
	if err := o.Share.Check(o.Kind); err != nil {
		return &ConfigError{Err: err}
	}
	return nil
}

// lease is who may visit, with what is left of the time to live since the first claim.
type lease struct {
	mu    sync.Mutex      // guards the following
	share *protocol.Share // nil: everybody, and for ever
	ends  time.Time       // zero: nothing was claimed yet, or there is no end
}

// now is what to claim with. The error is that the time is over.
func (l *lease) now() (*protocol.Share, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends.IsZero() {
		return l.share, nil
	}
	// The one clock may stop while the machine sleeps, and the other one be set.
	left := min(time.Until(l.ends), l.ends.Round(0).Sub(time.Now().Round(0))).Milliseconds()
	if left <= 0 {
		return nil, &protocol.Error{Code: protocol.Ended, Message: "the endpoint's time to live is over"}
	}
	share := *l.share
	share.TTL = left
	return &share, nil
}

// claimed is called when a claim with what now returned was granted.
func (l *lease) claimed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends.IsZero() && l.share != nil && l.share.TTL > 0 {
		l.ends = time.Now().Add(time.Duration(l.share.TTL) * time.Millisecond)
	}
}

// living is connect for an endpoint with a time to live: each next claim is for what is
// left of it since the first one.
func living(connect func(context.Context) (*session, error), bind *protocol.Bind) func(context.Context) (*session, error) {
	l := &lease{share: bind.Share}
	return func(ctx context.Context) (*session, error) {
		share, err := l.now()
		if err != nil {
			return nil, err
		}
		bind.Share = share
		s, err := connect(ctx)
		if err == nil {
			l.claimed()
		}
		return s, err
	}
}
