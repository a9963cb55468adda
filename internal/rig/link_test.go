package rig

import (
	"testing"
	"testing/synctest"
	"time"
)

const testDelay = 40 * time.Millisecond

// fill sends n chunks of size bytes on f, from a goroutine of its own, and ends it.
func fill(l *link, f *flow, n, size int) {
	go func() {
		for range n {
			l.send(f, make([]byte, size))
		}
		l.end(f, true)
	}()
}

// drain receives all of f as deliver does, and gives when the last byte was due.
func drain(l *link, f *flow) (bytes int, last time.Time, clean bool) {
	for {
		c, clean := l.next(f)
		if c == nil {
			return bytes, last, clean
		}
		time.Sleep(time.Until(c.due))
		l.arrived(f, len(c.data))
		bytes, last = bytes+len(c.data), c.due
	}
}

func TestLinkKeepsItsRateAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(testDelay, 10_000_000)
		defer l.close()
		time.Sleep(time.Minute) // an idle link saves nothing up
		f, start := l.join(), time.Now()
		fill(l, f, 100, 10_000) // 100 ms worth
		bytes, last, clean := drain(l, f)
		if bytes != 1_000_000 || !clean {
			t.Errorf("%d bytes arrived, clean %v", bytes, clean)
		}
		if got := last.Sub(start); got < 136*time.Millisecond || got > 142*time.Millisecond {
			t.Errorf("the last byte arrived after %v, want 140 ms", got)
		}
	})
}

func TestLinkSharesItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(testDelay, 10_000_000)
		defer l.close()
		start := time.Now()
		a, b := l.join(), l.join()
		fill(l, a, 100, 10_000)
		fill(l, b, 100, 10_000)
		done := make(chan time.Duration)
		for _, f := range []*flow{a, b} {
			go func() {
				_, last, _ := drain(l, f)
				done <- last.Sub(start)
			}()
		}
		for range 2 {
			if got := <-done; got < 230*time.Millisecond || got > 242*time.Millisecond {
				t.Errorf("one of two flows took %v, want 240 ms", got)
			}
		}
	})
}

func TestLinkLetsASmallFlowPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(testDelay, 10_000_000)
		defer l.close()
		bulk, small := l.join(), l.join()
		fill(l, bulk, 1000, chunkSize)
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			drain(l, bulk)
		}()
		time.Sleep(200 * time.Millisecond)
		start := time.Now()
		fill(l, small, 1, 100)
		_, last, _ := drain(l, small)
		if got := last.Sub(start); got < testDelay || got > testDelay+6*time.Millisecond {
			t.Errorf("a small chunk beside bulk took %v, want little more than %v", got, testDelay)
		}
		<-drained
	})
}

func TestLinkHoldsNoMoreThanThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(testDelay, 10_000_000)
		defer l.close()
		f := l.join()
		fill(l, f, 1000, 10_000)
		time.Sleep(time.Minute) // and nobody receives
		l.mu.Lock()
		held := f.held
		l.mu.Unlock()
		if limit := 400_000 + 2*queueMin + 10_000; held > limit || held < 400_000 {
			t.Errorf("holds %d bytes, want 400,000 and a queue, at most %d", held, limit)
		}
		l.leave(f) // lets the sender go
	})
}

func TestLinkBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(testDelay, 10_000_000)
		defer l.close()
		f := l.join()
		l.end(f, false)
		if c, clean := l.next(f); c != nil || clean {
			t.Errorf("next after the sender broke off = %v, %v", c, clean)
		}
		g := l.join()
		l.leave(g)
		if l.send(g, []byte("x")) {
			t.Error("send succeeds after the receiver broke off")
		}
	})
}
