package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// An exchange is watched from watchAfter on. What ends it before must not wait so
// long, nor what ends it later.
func TestWatch(t *testing.T) {
	const short, long = watchAfter / 5, 5 * watchAfter
	for name, test := range map[string]struct {
		timeout time.Duration // of the Transport
		cancel  time.Duration // when the context ends; negative: before
		err     error
		want    time.Duration
	}{
		"cancelled before": {cancel: -1, err: context.Canceled, want: 0},
		"cancelled soon":   {cancel: short, err: context.Canceled, want: watchAfter},
		"cancelled late":   {cancel: long, err: context.Canceled, want: long},
		"short timeout":    {timeout: short, err: ErrHeaderTimeout, want: short},
		"long timeout":     {timeout: long, err: ErrHeaderTimeout, want: long},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := pipe(test.timeout, func(c net.Conn) { io.Copy(io.Discard, c) })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				switch {
				case test.cancel < 0:
					cancel()
				case test.cancel > 0:
					time.AfterFunc(test.cancel, cancel)
				}
				start := time.Now()
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://a/", nil)
				_, err := tr.RoundTrip(req)
				if took := time.Since(start); !errors.Is(err, test.err) || took != test.want {
					t.Errorf("%v after %v, want %v after %v", err, took, test.err, test.want)
				}
			})
		})
	}
}

// The end of a context does nothing to the connection once its exchange is over,
// however long that took, and even where the watch comes late.
func TestWatchIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		tr := pipe(0, func(c net.Conn) {
			buf := make([]byte, 1<<10)
			for took := time.Duration(0); ; took += watchAfter {
				if _, err := c.Read(buf); err != nil {
					return
				}
				time.Sleep(took)
				io.WriteString(c, ok)
			}
		})
		defer tr.CloseIdle()
		dial := tr.Dial
		tr.Dial = func(ctx context.Context) (net.Conn, error) { dials++; return dial(ctx) }
		for range 4 {
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://a/", nil)
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if m := read(res); m.body != "hi" || m.err != nil {
				t.Fatal(m)
			}
			tr.idle[0].watch()
			cancel()
			synctest.Wait()
			// Nor does one that was over before.
			if _, err := tr.RoundTrip(req.Clone(ctx)); err != context.Canceled || len(tr.idle) != 1 {
				t.Fatalf("too late: %v, %d connections are kept", err, len(tr.idle))
			}
		}
		if dials != 1 {
			t.Errorf("4 requests after each other took %d connections", dials)
		}
	})
}
