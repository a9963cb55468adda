package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"
)

var (
	errClosed  = errors.New("certificates are not ordered any more: this process is ending")
	errBusy    = errors.New("too many certificates are on order: try again in a minute")
	errUnknown = errors.New("nobody has this name")
)

// order is a certificate that is being loaded or ordered.
type order struct {
	subject string
	done    chan struct{}
	err     error // once done is closed
}

// wait returns when o is done, or ctx, or the time is over.
func (o *order) wait(ctx context.Context, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-o.done:
		return o.err
	case <-timer.C:
	case <-ctx.Done():
	}
	return fmt.Errorf("the certificate for %s is on order: try again in a few seconds", o.subject)
}

// failure is why a name has no certificate, and when the next order may begin.
type failure struct {
	err   error
	pause time.Duration
	next  time.Time
}

// order gives the order for subject, which it begins where there is none. The
// error says why there is none and none may begin now.
func (a *ACME) order(subject string) (*order, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.orders[subject]; o != nil {
		return o, nil
	}
	if a.closed {
		return nil, errClosed
	}
	if f, ok := a.failures[subject]; ok && time.Now().Before(f.next) {
		return nil, fmt.Errorf("no certificate for %s before the next try at %s: %w", subject, f.next.UTC().Format("15:04:05Z"), f.err)
	}
	// The own names always find a place: they are few.
	if len(a.orders) >= waitingPerOrder*a.config.MaxOrders && !a.isOwn(subject) {
		return nil, errBusy
	}
	o := &order{subject: subject, done: make(chan struct{})}
	a.orders[subject] = o
	a.work.Go(func() { a.fill(o) })
	return o, nil
}

// fill gets the certificate of o into memory, and remembers a failure.
func (a *ACME) fill(o *order) {
	err := a.get(a.ctx, o.subject)
	a.mu.Lock()
	var next time.Time
	if err == nil {
		delete(a.failures, o.subject)
	} else if a.ctx.Err() == nil {
		next = a.failed(o.subject, err)
	}
	delete(a.orders, o.subject)
	a.mu.Unlock()
	if !next.IsZero() {
		a.config.Log.Warn("no certificate", "name", o.subject, "err", err, "next try after", next.UTC().Format(time.RFC3339))
	}
	o.err = err
	close(o.done)
}

// failed remembers that subject could not be ordered; a.mu is held.
func (a *ACME) failed(subject string, err error) time.Time {
	now := time.Now()
	f := failure{err: err, pause: firstPause}
	if last, ok := a.failures[subject]; ok {
		f.pause = min(last.pause*pauseFactor, longestPause)
	} else if len(a.failures) >= maxFailures {
		a.forget(now)
	}
	f.next = now.Add(f.pause)
	a.failures[subject] = f
	return f.next
}

// forget makes room among the failures: those whose pause is over go, and if
// there are none, any.
func (a *ACME) forget(now time.Time) {
	for name, f := range a.failures {
		if now.After(f.next) {
			delete(a.failures, name)
		}
	}
	for name := range a.failures {
		if len(a.failures) < maxFailures {
			return
		}
		delete(a.failures, name)
	}
}

// get loads the certificate of subject from the storage, or orders it where
// there is none or an expired one.
func (a *ACME) get(ctx context.Context, subject string) error {
	config := a.configOf(subject)
	old, err := config.CacheManagedCertificate(ctx, subject)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = config.ObtainCertSync(ctx, subject)
	case err != nil:
		return fmt.Errorf("the stored certificate for %s cannot be used: %w", subject, err)
	case !old.Expired():
		return nil
	default:
		err = config.RenewCertSync(ctx, subject, false)
	}
	if err != nil {
		return err
	}
	if _, err := config.CacheManagedCertificate(ctx, subject); err != nil {
		return fmt.Errorf("the new certificate for %s cannot be used: %w", subject, err)
	}
	if !old.Empty() {
		a.cache.Remove([]string{old.Hash()})
	}
	return nil
}

// keepTrying orders subject until it is there, or ctx has ended.
func (a *ACME) keepTrying(ctx context.Context, subject string) {
	for ctx.Err() == nil {
		o, err := a.order(subject)
		if err == nil {
			select {
			case <-o.done:
				err = o.err
			case <-ctx.Done():
				return
			}
		}
		if err == nil || errors.Is(err, errClosed) {
			return
		}
		select {
		case <-time.After(a.pause(subject)):
		case <-ctx.Done():
		}
	}
}

// pause is how long subject has to wait until it may be ordered again.
func (a *ACME) pause(subject string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f, ok := a.failures[subject]; ok {
		return max(time.Until(f.next), time.Second)
	}
	return firstPause
}

// configOf is how subject is ordered.
func (a *ACME) configOf(subject string) *certmagic.Config {
	if a.dns != nil && a.isOwn(subject) {
		return a.dns
	}
	return a.web
}

func (a *ACME) configFor(c certmagic.Certificate) (*certmagic.Config, error) {
	if len(c.Names) == 0 {
		return nil, errors.New("a certificate without a name")
	}
	return a.configOf(c.Names[0]), nil
}
