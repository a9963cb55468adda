package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Stall is a way to keep a connection busy without ever finishing what was begun.
type Stall string

// The stalls. Each but [StallBody] is to be cut.
const (
	StallSilent       Stall = "silence"                    // connects, sends nothing
	StallRequestLine  Stall = "request line"               // of HTTP/1, byte by byte
	StallHeader       Stall = "header"                     // a field that never ends, byte by byte
	StallFields       Stall = "fields"                     // fields without an end
	StallPreface      Stall = "HTTP/2 preface"             // byte by byte
	StallContinuation Stall = "HTTP/2 CONTINUATION"        // a header section without an end
	StallBody         Stall = "body"                       // a request whose body comes byte by byte: it is not cut
	StallHandshake    Stall = "upgrade, then silence"      // no hello
	StallHello        Stall = "upgrade, then a slow hello" // byte by byte
	StallHuge         Stall = "upgrade, then huge lengths" // a frame that says it is of 4 GiB
	StallSocket       Stall = "WebSocket, then silence"
	StallSlowFrame    Stall = "WebSocket, then a slow frame"
	StallHugeFrame    Stall = "WebSocket, then a huge frame" // of 2^63-1 bytes
	StallUnmasked     Stall = "WebSocket, then unmasked frames"
	StallFragments    Stall = "WebSocket, then fragments" // empty ones, without an end
	StallReserved     Stall = "WebSocket, then reserved bits"
)

// Stalls returns all of them.
func Stalls() []Stall {
	return []Stall{
		StallSilent, StallRequestLine, StallHeader, StallFields, StallPreface, StallContinuation, StallBody,
		StallHandshake, StallHello, StallHuge,
		StallSocket, StallSlowFrame, StallHugeFrame, StallUnmasked, StallFragments, StallReserved,
	}
}

// A StallReport says what became of the visitors of [StallVisitors].
type StallReport struct {
	Opened  int           // connections that were made, and upgraded where the stall does
	Failed  int           // those that were not
	Cut     int           // ended by the server
	Kept    int           // open when the context ended
	Longest time.Duration // from when one was made to when it was cut
	Err     error         // why one failed; nil: none did
}

// StallVisitors opens n connections to the server at addr, which all do the same.
// host is the name of a tunnel, for [StallBody]; token a client's, "" where the
// server wants none. They send a little each pause until the server cuts them or
// ctx ends. It returns when all have ended.
func StallVisitors(ctx context.Context, addr, host, token string, kind Stall, n int, pause time.Duration) StallReport {
	var (
		mu       sync.Mutex
		report   StallReport
		visitors sync.WaitGroup
		dialing  = make(chan struct{}, 256) // lest the accept queue overflows
	)
	for i := range n {
		visitors.Go(func() {
			dialing <- struct{}{}
			s, err := openStall(ctx, addr, host, token, kind, i)
			<-dialing
			took, cut := time.Duration(0), false
			if err == nil {
				took, cut = s.run(ctx, pause)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				report.Failed++
				report.Err = err
				return
			case cut:
				report.Cut++
				report.Longest = max(report.Longest, took)
			default:
				report.Kept++
			}
			report.Opened++
		})
	}
	visitors.Wait()
	return report
}

// stall is one connection.
type stall struct {
	conn   net.Conn
	r      *bufio.Reader
	began  time.Time
	begin  string // sent at once
	repeat string // sent again and again, as much as step at a time; "": silence
	step   int
	once   bool // repeat is sent once
}

func openStall(ctx context.Context, addr, host, token string, kind Stall, i int) (*stall, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &stall{conn: conn, r: bufio.NewReaderSize(conn, 512), began: time.Now(), step: 1}
	s.script(kind, host)
	if upgrade := upgradeFor(kind, token, i); upgrade != "" {
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err = io.WriteString(conn, upgrade); err == nil {
			var res *http.Response
			if res, err = http.ReadResponse(s.r, nil); err == nil && res.StatusCode != http.StatusSwitchingProtocols {
				err = fmt.Errorf("the upgrade was answered %s", res.Status)
			}
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		conn.SetDeadline(time.Time{})
	}
	return s, nil
}

// script is what is sent, after the upgrade if there is one.
func (s *stall) script(kind Stall, host string) {
	const (
		muxHuge = "\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff" // 4 GiB of data on stream 1
		long    = "xxxxxxxxxxxxxxxx"
	)
	switch kind {
	case StallRequestLine:
		s.begin, s.repeat = "GET /", long
	case StallHeader:
		s.begin, s.repeat = "GET / HTTP/1.1\r\nHost: "+host+"\r\nX: ", long
	case StallFields:
		s.begin, s.repeat, s.step = "GET / HTTP/1.1\r\nHost: "+host+"\r\n", "X: y\r\n", 6
	case StallPreface:
		s.repeat = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r" // the last byte never comes
		s.begin, s.repeat, s.once = s.repeat[:1], s.repeat[1:], true
	case StallContinuation:
		s.begin = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"
		s.repeat, s.step = "\x00\x00\x00\x09\x00\x00\x00\x00\x01", 9
	case StallBody:
		s.begin, s.repeat = "POST / HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 1000000\r\n\r\n", long
	case StallHello:
		s.begin = "\x00\x01\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x10\x00" // a stream, and 4 KiB on it
		s.begin, s.repeat = s.begin+"\x00\x00\x0f\xfc", long
	case StallHuge:
		s.begin, s.repeat = muxHuge, long
	case StallSlowFrame:
		s.begin, s.repeat = "\x82\xfe\xff\xff\x00\x00\x00\x00", "\x00" // 64 KiB, masked by 0
	case StallHugeFrame:
		s.begin, s.repeat = "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"+muxHuge, long
	case StallUnmasked:
		s.begin, s.repeat, s.step = "\x82\x05hello", "\x82\x05hello", 7
	case StallFragments:
		s.begin, s.repeat, s.step = "\x02\x80\x00\x00\x00\x00", "\x00\x80\x00\x00\x00\x00", 6
	case StallReserved:
		s.begin, s.repeat, s.step = "\xf2\x80\x00\x00\x00\x00", "\xf2\x80\x00\x00\x00\x00", 6
	}
}

// upgradeFor is the request that makes a client's connection, or "".
func upgradeFor(kind Stall, token string, i int) string {
	protocol := "Upgrade: tunnel.v1\r\n"
	switch kind {
	case StallSocket, StallSlowFrame, StallHugeFrame, StallUnmasked, StallFragments, StallReserved:
		protocol = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: tunnel.v1\r\n"
	case StallHandshake, StallHello, StallHuge:
	default:
		return ""
	}
	if token != "" {
		protocol += "Authorization: Bearer " + token + "\r\n"
	}
	id := fmt.Sprintf("%s%06d", strings.Repeat("s", 16), i)
	return "GET /.well-known/tunnel/" + id + " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n" + protocol + "\r\n"
}

// run reports whether the server cut the connection, and after how long.
func (s *stall) run(ctx context.Context, pause time.Duration) (took time.Duration, cut bool) {
	defer s.conn.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, s.r)
	}()
	io.WriteString(s.conn, s.begin)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for at := 0; ; {
		select {
		case <-gone:
			return time.Since(s.began), true
		case <-ctx.Done():
			s.conn.Close()
			<-gone
			return 0, false
		case <-tick.C:
			if at == len(s.repeat) && !s.once {
				at = 0
			}
			end := min(at+s.step, len(s.repeat))
			io.WriteString(s.conn, s.repeat[at:end]) // that it was cut shows in reading
			at = end
		}
	}
}
