package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	sdk "github.com/revtun/tunnel/pkg/tunnel"
)

// playRole is a child process: "app LISTEN", "watch ADDR HOST", "flood ADDR HOST KIND",
// "secure-flood ADDR HOST KIND", "quic-flood ADDR KIND", "raw LISTEN", or
// "fleet LISTEN SERVER COUNT". It ends when its standard input does.
func playRole(args []string) error {
	go rig.ExitWithParent()
	switch {
	case len(args) == 2 && args[0] == "app":
		l, err := net.Listen("tcp", args[1])
		if err != nil {
			return err
		}
		return http.Serve(frugal{l}, rig.NewPlainApp())
	case len(args) == 3 && args[0] == "watch":
		return watch(args[1], args[2])
	case len(args) == 4 && args[0] == "flood":
		return flood(args[1], args[2], rig.Flood(args[3]), false)
	case len(args) == 4 && args[0] == "secure-flood":
		return flood(args[1], args[2], rig.Flood(args[3]), true)
	case len(args) == 3 && args[0] == "quic-flood":
		return quicFlood(args[1], args[2])
	case len(args) == 2 && args[0] == "raw":
		return rawApp(args[1])
	case len(args) == 4 && args[0] == "fleet":
		count, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return sail(args[1], args[2], count)
	}
	return errors.New("unknown role, or not its arguments")
}

// frugal is a listener whose connections have short send buffers. The system would let an app with a
// thousand readers that stall fill megabytes for each, out of what all connections of the machine
// share; then it drops packets of any of them. With a tunnel the app and the server are two machines.
type frugal struct{ net.Listener }

func (l frugal) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(128 << 10)
	}
	return c, err
}

// muster is the state of a fleet.
type muster struct {
	Up   int `json:"up"`   // tunnels that are connected
	Lost int `json:"lost"` // connections that were lost so far
	Gone int `json:"gone"` // clients that gave up
	Last string
}

// A fleet is many clients of pkg/tunnel in one process, each with a connection and a name of its own.
type fleet struct {
	mu sync.Mutex
	muster
}

// sail holds count tunnels to server, which answer [rig.Hello], and tells their muster at addr.
func sail(addr, server string, count int) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	f := &fleet{}
	slots := make(chan struct{}, 64) // clients that connect for the first time
	for i := range count {
		go func() {
			slots <- struct{}{}
			c := &sdk.Client{Server: server, Transport: sdk.Raw, Events: f.note}
			l, err := c.Listen(context.Background(), sdk.Options{Name: fleetName(i)})
			<-slots
			if err == nil {
				err = http.Serve(l, http.HandlerFunc(hello))
			}
			f.gone(err)
		}()
	}
	return http.Serve(l, f)
}

func fleetName(i int) string { return "ship-" + strconv.Itoa(i) }

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, rig.Hello) }

func (f *fleet) note(e sdk.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e.Type {
	case sdk.Ready, sdk.Reconnected:
		f.Up++
	case sdk.Disconnected:
		f.Up--
		f.Lost++
		f.Last = fmt.Sprint(e.Err)
	}
}

func (f *fleet) gone(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Gone++
	f.Last = fmt.Sprint(err)
}

func (f *fleet) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	json.NewEncoder(w).Encode(f.muster)
}

// ships is a fleet as the trial sees it.
type ships struct {
	*rig.Proc
	at    string
	count int
}

// launch starts a fleet and returns when all its tunnels are up.
func (s *site) launch(count int) (*ships, error) {
	at, err := s.FreePort()
	if err != nil {
		return nil, err
	}
	p, err := s.role("fleet", at, "http://"+s.addr, strconv.Itoa(count))
	if err != nil {
		return nil, err
	}
	f := &ships{p, at, count}
	if err := s.Listening(at); err != nil {
		return nil, err
	}
	return f, s.Until(2*time.Minute, 20*time.Millisecond, f.allUp)
}

// allUp fails until each tunnel is up.
func (f *ships) allUp() error {
	m, err := f.muster()
	if err == nil && m.Up != f.count {
		err = fmt.Errorf("%d of %d tunnels are up; %d clients gave up; the last error is %s", m.Up, f.count, m.Gone, m.Last)
	}
	return err
}

func (f *ships) muster() (m muster, err error) {
	resp, err := http.Get("http://" + f.at)
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	return m, json.NewDecoder(resp.Body).Decode(&m)
}
