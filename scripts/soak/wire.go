package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// The frames of yamux, https://github.com/hashicorp/yamux/blob/master/spec.md, written by hand so that
// they can be wrong.
const (
	frameData, frameWindow, framePing, frameGoAway = 0, 1, 2, 3
	flagSYN, flagACK, flagFIN, flagRST             = 1, 2, 4, 8
)

// frame appends one to b; its payload, if it has one, is the caller's.
func frame(b []byte, kind byte, flags uint16, id, length uint32) []byte {
	b = append(b, 0, kind)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	return binary.BigEndian.AppendUint32(b, length)
}

// control is the id of the control stream.
const control = 1

// A wire is a client's connection without a client behind it: nothing answers pings or requests.
type wire struct {
	*net.TCPConn
	in   *bufio.Reader
	text []byte // of the control stream, not read yet
}

// dial connects to the server from an address of this machine's own, of which there is one for each i
// of a few, so that many connections do not run out of ports.
func (s *site) dial(i int) (*wire, error) { return dialTo(s.addr, i) }

func dialTo(addr string, i int) (*wire, error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%8))}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{TCPConn: c.(*net.TCPConn), in: bufio.NewReaderSize(c, 512)}, c.SetDeadline(time.Now().Add(time.Minute))
}

// upgradeRequest asks for a session of its own. more are lines of its header.
func upgradeRequest(host, token string, more ...string) string {
	return "GET " + protocol.PathPrefix + rand.Text() + " HTTP/1.1\r\nHost: " + host +
		"\r\nConnection: Upgrade\r\nUpgrade: " + token + "\r\n" + strings.Join(more, "") + "\r\n"
}

// upgrade makes the connection a session's.
func (w *wire) upgrade(host string) error {
	return w.switchTo(upgradeRequest(host, protocol.Upgrade))
}

// upgradeWebSocket does the same with WebSocket (RFC 6455, section 4.1).
func (w *wire) upgradeWebSocket(host string) error {
	return w.switchTo(upgradeRequest(host, "websocket", "Sec-WebSocket-Version: 13\r\n",
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "Sec-WebSocket-Protocol: "+protocol.Upgrade+"\r\n"))
}

func (w *wire) switchTo(request string) error {
	if _, err := io.WriteString(w, request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return &refusal{resp.StatusCode, resp.Header.Get("Retry-After")}
	}
	return nil
}

// say sends a message on the control stream, which the first one opens.
func (w *wire) say(m *protocol.Message) error {
	var b bytes.Buffer
	if err := protocol.Write(&b, m); err != nil {
		return err
	}
	flags := uint16(0)
	if m.Hello != nil {
		flags = flagSYN
	}
	_, err := w.Write(append(frame(nil, frameData, flags, control, uint32(b.Len())), b.Bytes()...))
	return err
}

// hear reads the next message of the control stream, past whatever else comes.
func (w *wire) hear() (*protocol.Message, error) {
	for {
		if len(w.text) >= 4 && len(w.text) >= 4+int(binary.BigEndian.Uint32(w.text)) {
			r := bytes.NewReader(w.text)
			m, err := protocol.Read(r)
			w.text = w.text[len(w.text)-r.Len():]
			return m, err
		}
		var head [12]byte
		if _, err := io.ReadFull(w.in, head[:]); err != nil {
			return nil, err
		}
		if head[1] != frameData {
			continue
		}
		payload := make([]byte, min(binary.BigEndian.Uint32(head[8:]), protocol.MaxMessage))
		if _, err := io.ReadFull(w.in, payload); err != nil {
			return nil, err
		}
		w.text = append(w.text, payload...)
	}
}

// login says hello and hears the welcome.
func (w *wire) login() error {
	if err := w.say(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Agent: "soak"}}); err != nil {
		return err
	}
	m, err := w.hear()
	if err == nil && m.Welcome == nil {
		err = fmt.Errorf("no welcome but %+v", m)
	}
	return err
}

// claim binds a name.
func (w *wire) claim(name string) error {
	if err := w.say(&protocol.Message{Bind: &protocol.Bind{ID: 1, Name: name}}); err != nil {
		return err
	}
	m, err := w.hear()
	switch {
	case err != nil:
		return err
	case m.Bound == nil:
		return fmt.Errorf("not bound but %+v", m)
	case m.Bound.Error != nil:
		return m.Bound.Error
	}
	return nil
}

// session dials, upgrades and logs in.
func (s *site) session(i int) (*wire, error) {
	w, err := s.dial(i)
	if err != nil {
		return nil, err
	}
	if err = w.upgrade(s.addr); err == nil {
		err = w.login()
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// reset ends the connection as a process that is killed with unread bytes does.
func (w *wire) reset() {
	_ = w.SetLinger(0)
	w.Close()
}
