package tunnel

import (
	"context"
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

// living is connect for an endpoint with a time to live: each next claim is for what is
// left of it since the first one.
func living(connect func(context.Context) (*session, error), bind *protocol.Bind) func(context.Context) (*session, error) {
	if bind.Share == nil || bind.Share.TTL == 0 {
		return connect
	}
	whole := time.Duration(bind.Share.TTL) * time.Millisecond
	var ends time.Time
	return func(ctx context.Context) (*session, error) {
		if !ends.IsZero() {
			// The one clock may stop while the machine sleeps, and the other one be set.
			left := min(time.Until(ends), ends.Round(0).Sub(time.Now().Round(0))).Milliseconds()
			if left <= 0 {
				return nil, &protocol.Error{Code: protocol.Ended, Message: "the endpoint's time to live is over"}
			}
			share := *bind.Share
			share.TTL = left
			bind.Share = &share
		}
		s, err := connect(ctx)
		if err == nil && ends.IsZero() {
			ends = time.Now().Add(whole)
		}
		return s, err
	}
}
