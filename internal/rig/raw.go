package rig

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// maxLine bounds the line that a raw exchange begins with, in bytes.
const maxLine = 4 << 10

// RunRaw answers the connections of l, which know no HTTP, until ctx ends, and then
// breaks off those that are open. What is asked is a line, the path of an [Ask] of kind
// Raw, then the body, then the end of the visitor's side; the answer is a line, with id,
// length and sum, the body, and the end. c, where it is not nil, has the app speak TLS.
func (a *App) RunRaw(ctx context.Context, l net.Listener, c *tls.Config) error {
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			a.exchange(conn.(*net.TCPConn), c)
		})
	}
}

// exchange is one connection. Until the answer is out, its end is a reset: bytes tell
// only by their end whether they are all, also when the app is killed.
func (a *App) exchange(tcp *net.TCPConn, config *tls.Config) {
	_ = tcp.SetLinger(0)
	defer tcp.Close()
	conn := net.Conn(tcp)
	if config != nil {
		conn = tls.Server(tcp, config)
	}
	in := bufio.NewReaderSize(conn, maxLine)
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	u, err := url.Parse(strings.TrimSuffix(line, "\n"))
	if err != nil {
		return
	}
	ask, err := parseAsk(u)
	if err != nil {
		return
	}
	a.Journal.note(ask.ID, "began", "RAW")
	sum := sha256.New()
	n, err := io.Copy(sum, in)
	switch {
	case err != nil:
		a.Journal.note(ask.ID, "body", bodyBroken)
		return
	case n != ask.Size || hex.EncodeToString(sum.Sum(nil)) != Sum(ask.ID, ask.Size):
		a.Journal.note(ask.ID, "body", bodyWrong)
		return
	}
	a.Journal.note(ask.ID, "body", bodyWhole)
	defer func() { _ = recover() }() // of write, where it breaks off
	fmt.Fprintf(conn, "%s %d %s\n", ask.ID, ask.Size, Sum(ask.ID, ask.Size))
	ask.write(conn, func() error { return nil })
	_ = tcp.SetLinger(-1)
	conn.Close()
}

// raw asks without HTTP, over TCP or TLS.
func (v *Visitor) raw(ctx context.Context, o *Result, alive func()) error {
	tcp, err := v.dial(ctx, "", "")
	if err != nil {
		return err
	}
	defer tcp.Close()
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	defer stop()
	conn := tcp
	if v.TLS != nil {
		config := v.TLS.Clone()
		config.ServerName = v.Host
		conn = tls.Client(tcp, config)
	}
	a := o.Ask
	if _, err := io.WriteString(conn, a.Path()+"\n"); err != nil {
		return err
	}
	body := &paced{from: Body(a.ID, a.Size), piece: a.Size/int64(a.pieces()) + 1, pause: a.Pause, alive: alive}
	if _, err := io.Copy(struct{ io.Writer }{conn}, body); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	in := bufio.NewReaderSize(&watched{from: conn, alive: alive}, maxLine)
	line, err := in.ReadString('\n')
	if err == io.EOF {
		return o.wrong([]byte(line), fmt.Errorf("a clean end amid the line %q", line))
	}
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%s %d %s\n", a.ID, a.Size, Sum(a.ID, a.Size)); line != want {
		return o.end(CrossTalk, fmt.Errorf("the answer begins with %.100q", line))
	}
	same, first, err := o.compare(in, a.Size)
	switch {
	case err != nil:
		return err
	case !same || o.Got != a.Size:
		return o.wrong(first, fmt.Errorf("a clean end after %d bytes of %d, the same so far: %v", o.Got, a.Size, same))
	}
	return o.end(Full, nil)
}

// Echo sends each datagram back to where it came from, until ctx ends.
func (a *App) Echo(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		_, _ = conn.WriteTo(buf[:n], from) // or it is lost
	}
}

// echoes is a visitor's socket, and the ids that it has asked with.
type echoes struct {
	one  sync.Mutex // one ask at a time
	conn net.Conn
	ids  map[string]bool
	seen map[string]bool // of the ask under way: echoes that came
}

const (
	// echoTry is how long a datagram is waited for before it counts as lost.
	echoTry = 250 * time.Millisecond
	// echoTries is how often one is sent. More losses in a row are an error.
	echoTries = 40
)

// datagrams sends each message until it comes back. Messages may be lost, but none may come
// twice, otherwise than it was sent, or to another visitor.
func (v *Visitor) datagrams(ctx context.Context, o *Result, alive func()) error {
	e, err := v.socket()
	if err != nil {
		return err
	}
	if v.Fresh {
		defer e.conn.Close()
	}
	e.one.Lock()
	defer e.one.Unlock()
	e.ids[o.Ask.ID], e.seen = true, make(map[string]bool)
	for i := range o.Ask.pieces() {
		if i > 0 {
			time.Sleep(o.Ask.Pause)
		}
		if err := e.message(ctx, o, i); err != nil {
			return err
		}
		alive()
	}
	return o.end(Full, nil)
}

func (v *Visitor) socket() (*echoes, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.udp != nil {
		return v.udp, nil
	}
	conn, err := net.Dial("udp", v.Addr)
	if err != nil {
		return nil, err
	}
	e := &echoes{conn: conn, ids: make(map[string]bool)}
	if !v.Fresh {
		v.udp = e
	}
	return e, nil
}

// datagram is message i, sent for the n-th time.
func (a Ask) datagram(i, n int) string {
	return fmt.Sprintf("%s %d %d\n%s", a.ID, i, n, a.message(i))
}

// message sends message i until an echo of it comes.
func (e *echoes) message(ctx context.Context, o *Result, i int) error {
	buf := make([]byte, 64<<10)
	for try := range echoTries {
		_, _ = io.WriteString(e.conn, o.Ask.datagram(i, try)) // where it fails it is lost
		for end := time.Now().Add(echoTry); ; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			_ = e.conn.SetReadDeadline(end)
			n, err := e.conn.Read(buf)
			if err != nil {
				if !time.Now().Before(end) {
					break
				}
				time.Sleep(time.Millisecond) // nobody was there
				continue
			}
			o.Got += int64(n)
			mine, err := e.judge(o, string(buf[:n]))
			if err != nil {
				return err
			}
			if mine == i {
				return nil
			}
		}
	}
	return fmt.Errorf("message %d did not come back in %d tries", i, echoTries)
}

// judge says of which message of o's a datagram is, -1 where it is of an earlier ask.
func (e *echoes) judge(o *Result, got string) (int, error) {
	head, _, _ := strings.Cut(got, "\n")
	var id string
	var i, try int
	if n, _ := fmt.Sscanf(head, "%s %d %d", &id, &i, &try); n != 3 {
		return 0, o.end(Truncated, fmt.Errorf("a datagram that nobody sent: %.100q", got))
	}
	switch {
	case !e.ids[id]:
		return 0, o.end(CrossTalk, fmt.Errorf("a datagram of another visitor: %.100q", got))
	case id != o.Ask.ID:
		return -1, nil
	case got != o.Ask.datagram(i, try):
		return 0, o.end(Truncated, errors.New("a datagram came otherwise than it was sent"))
	case e.seen[head]:
		return 0, o.end(Duplicated, fmt.Errorf("the datagram %q came twice", head))
	}
	e.seen[head] = true
	return i, nil
}
