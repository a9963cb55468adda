package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The metrics of path.
const (
	oneDown    = "1 down MB/s"
	oneUp      = "1 up MB/s"
	fourDown   = "4 down MB/s"
	idleP50    = "small p50 ms"
	besideP50  = "beside bulk: p50 ms"
	besideP99  = "p99 ms"
	besideDown = "bulk MB/s"
)

const (
	roundTrip  = 80 * time.Millisecond
	wideRate   = 100_000_000 // bytes a second
	narrowRate = 20_000_000
	endless    = 2 << 30 // bytes of a body that is broken off in time; not more, as some keep it in memory
)

func pathRow() row {
	return row{
		name: "path",
		about: "80 ms round trip between client and server: one and four streams on 100 MB/s each way, " +
			"small requests alone and beside one download on 20 MB/s (direct: connections of their own)",
		metrics: []metric{
			{oneDown, 1, direct}, {oneUp, 1, direct}, {fourDown, 1, direct},
			{idleP50, 1, direct}, {besideP50, 1, direct}, {besideP99, 1, direct}, {besideDown, 1, direct},
		},
		measure: func(r *run, row row) {
			r.each(row, pick(r, 1, 2), orTunnel(direct), func(s *site, v variant) error { return r.path(row, s, v) })
		},
	}
}

// path measures each case on a tunnel of its own, so that none meets what another one left under way.
func (r *run) path(row row, s *site, v variant) error {
	cases := []struct {
		metric string
		conns  int
		upload bool
	}{{oneDown, 1, false}, {oneUp, 1, true}, {fourDown, 4, false}}
	for _, c := range cases {
		t, err := s.open(v, s.path(wideRate))
		if err != nil {
			return err
		}
		rate, err := r.throughput(t, c.conns, c.upload)
		if err != nil {
			return fmt.Errorf("%s: %w", c.metric, err)
		}
		r.store.add(row.name, "", v.name, c.metric, rate/1e6)
		s.Clear()
	}
	t, err := s.open(v, s.path(narrowRate))
	if err != nil {
		return err
	}
	return r.beside(row, v, t)
}

// path gives a function that starts a long path of that rate to an address.
func (s *site) path(rate int) func(to string) (string, error) {
	return func(to string) (string, error) {
		at, err := s.FreePort()
		if err != nil {
			return "", err
		}
		if _, err := s.Start(s.role("path", at, to, roundTrip.String(), strconv.Itoa(rate))); err != nil {
			return "", err
		}
		return at, s.Listening(at)
	}
}

// throughput is the bytes a second that arrive on all of conns transfers together, after a while.
func (r *run) throughput(t *tunnel, conns int, upload bool) (float64, error) {
	ts, stop, err := r.transfers(t, conns, upload)
	if err != nil {
		return 0, err
	}
	arrived := func() (sum int64, err error) {
		if upload {
			return ask(r.app, "/received")
		}
		for _, b := range ts {
			sum += b.moved.Load()
		}
		return sum, nil
	}
	r.home.Sleep(pick(r, 500*time.Millisecond, 1500*time.Millisecond))
	before, err := arrived()
	start := time.Now()
	if err == nil {
		r.home.Sleep(pick(r, 600*time.Millisecond, 4*time.Second))
	}
	after, err2 := arrived()
	elapsed := time.Since(start)
	if failed := stop(); failed != nil {
		return 0, failed
	}
	if err != nil || err2 != nil {
		return 0, fmt.Errorf("ask the app: %v, %v", err, err2)
	}
	return float64(after-before) / elapsed.Seconds(), nil
}

// transfers starts endless bodies. stop breaks them off, and gives an error if one ended before.
func (r *run) transfers(t *tunnel, conns int, upload bool) (ts []*transfer, stop func() error, err error) {
	ended := make(chan error, conns)
	stop = func() error {
		var err error
		select {
		case err = <-ended:
			err = fmt.Errorf("a transfer ended: %v", err)
			ended <- nil
		default:
		}
		for _, b := range ts {
			b.close()
		}
		for range ts {
			<-ended
		}
		return err
	}
	for range conns {
		b := &transfer{addr: t.visit, host: t.host, bytes: endless, limit: time.Minute}
		if err := b.dial(); err != nil {
			return nil, nil, joinStop(err, stop)
		}
		ts = append(ts, b)
		go func() {
			if upload {
				ended <- b.up()
				return
			}
			ended <- b.down()
		}()
	}
	return ts, stop, nil
}

// joinStop stops what was started before err, which it returns.
func joinStop(err error, stop func() error) error {
	_ = stop()
	return err
}

// beside measures small requests alone, and then beside one download.
func (r *run) beside(row row, v variant, t *tunnel) error {
	small := func(measure time.Duration, mark func()) (*loadResult, error) {
		l := &load{addr: t.visit, host: t.host, conns: 1, warm: 200 * time.Millisecond, measure: measure, mark: mark}
		return l.run()
	}
	add := func(metric string, value float64) { r.store.add(row.name, "", v.name, metric, value) }
	alone, err := small(pick(r, 300*time.Millisecond, 2*time.Second), nil)
	if err != nil {
		return fmt.Errorf("small alone: %w", err)
	}
	ts, stop, err := r.transfers(t, 1, false)
	if err != nil {
		return err
	}
	r.home.Sleep(pick(r, 700*time.Millisecond, 1500*time.Millisecond))
	var marks []int64
	got, err := small(pick(r, 1500*time.Millisecond, 6*time.Second), func() { marks = append(marks, ts[0].moved.Load()) })
	if failed := stop(); failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("small beside bulk: %w", err)
	}
	add(idleP50, milli(alone.latency.quantile(0.50)))
	add(besideP50, milli(got.latency.quantile(0.50)))
	add(besideP99, milli(got.latency.quantile(0.99)))
	add(besideDown, float64(marks[1]-marks[0])/1e6/got.elapsed.Seconds())
	return nil
}

// ask gets a number from the app itself.
func ask(app, path string) (int64, error) {
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://" + app + path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, 64)
}

func milli(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
