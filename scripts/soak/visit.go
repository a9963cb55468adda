package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// A refusal is an answer that is not the app's.
type refusal struct {
	status     int
	retryAfter string
}

func (e *refusal) Error() string {
	return fmt.Sprintf("status %d, Retry-After %q", e.status, e.retryAfter)
}

// visitors is a client of the server's visitors, on connections of its own that are kept.
func visitors() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: nil, MaxIdleConnsPerHost: 1 << 16, DisableCompression: true,
		DialContext: (&net.Dialer{Timeout: rig.Patience}).DialContext,
	}}
}

// get asks for a path of a name within limit and wants the small answer. The error is a *refusal where
// another status came.
func (s *site) get(c *http.Client, name, path string, limit time.Duration) error {
	return s.getURL(c, "http://"+s.addr+path, name+".localhost", limit)
}

func (s *site) getURL(c *http.Client, url, host string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(s.Context, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch {
	case resp.StatusCode != http.StatusOK:
		return &refusal{resp.StatusCode, resp.Header.Get("Retry-After")}
	case err != nil:
		return err
	case string(body) != rig.Hello:
		return fmt.Errorf("not the app's answer: %.60q", body)
	}
	return nil
}

// status is the HTTP status in err, 200 for nil and 0 where there was none.
func status(err error) int {
	var r *refusal
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &r):
		return r.status
	}
	return 0
}

// paced is a steady load: so many requests, spread over a time, whatever the answers take.
type paced struct {
	name     string
	requests int
	over     time.Duration
	limit    time.Duration // for each; 0: 30 s
	secure   bool          // by https
}

// latencies are those of the answers, and the errors of the others.
type latencies struct {
	thirds [3][]time.Duration // of the load
	errors []error
}

// send makes the requests, each on a goroutine of its own. A server that is slow does not get fewer of them.
func (s *site) send(p paced) *latencies {
	if p.limit == 0 {
		p.limit = 30 * time.Second
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	l := &latencies{}
	c, get := visitors(), s.get
	if p.secure {
		c, get = s.secureVisitors(), s.getSecure
	}
	defer c.CloseIdleConnections()
	gap, start := p.over/time.Duration(p.requests), time.Now()
	for i := range p.requests {
		time.Sleep(time.Until(start.Add(time.Duration(i) * gap)))
		all.Go(func() {
			begin := time.Now()
			err := get(c, p.name, "/small", p.limit)
			took := time.Since(begin)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				l.errors = append(l.errors, err)
			} else {
				third := &l.thirds[i*3/p.requests]
				*third = append(*third, took)
			}
		})
	}
	all.Wait()
	return l
}

// answers is how many there are.
func (l *latencies) answers() (n int) {
	for _, third := range l.thirds {
		n += len(third)
	}
	return n
}

// p99 is what 99 of 100 answers did not exceed: that of the third which is neither the best nor the
// worst, so that one pause of the machine does not decide. It is 0 where a third has no answer.
func (l *latencies) p99() time.Duration {
	var each []time.Duration
	for _, third := range l.thirds {
		if len(third) == 0 {
			return 0
		}
		slices.Sort(third)
		each = append(each, third[len(third)*99/100])
	}
	slices.Sort(each)
	return each[1]
}

// failed says how many requests had no good answer, and the first reason.
func (l *latencies) failed() string {
	if len(l.errors) == 0 {
		return fmt.Sprintf("0 of %d failed", l.answers())
	}
	return fmt.Sprintf("%d of %d failed, as: %v", len(l.errors), len(l.errors)+l.answers(), l.errors[0])
}

// seconds prints a duration.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
