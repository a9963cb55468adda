package inspect

import (
	"encoding/binary"
	"net/http"
	"strings"
	"time"
)

// message is one of a WebSocket, or an event of a stream of those.
type message struct {
	at          time.Time
	fromVisitor bool
	kind        string // text, binary, ping, pong, close; event
	data        []byte // the beginning, as it was on the wire but unmasked
	size        int64  // on the wire
	deflated    bool   // by permessage-deflate
	alone       bool   // it can be inflated without what came before
}

// messageOverhead is what a message takes beside its data, in bytes.
const messageOverhead = 120

func (m message) weight() int64 { return int64(len(m.data)) + messageOverhead }

// The opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

func kindOf(opcode byte) string {
	switch opcode {
	case opText:
		return "text"
	case opBinary:
		return "binary"
	case opClose:
		return "close"
	case opPing:
		return "ping"
	case opPong:
		return "pong"
	}
	return "unknown"
}

// deflate is what was agreed on of permessage-deflate (RFC 7692, section 7.1).
type deflate struct {
	used                            bool
	visitorForgets, answererForgets bool // no_context_takeover
}

func parseDeflate(answer http.Header) (d deflate) {
	for _, v := range answer["Sec-Websocket-Extensions"] {
		for extension := range strings.SplitSeq(v, ",") {
			name, parameters, _ := strings.Cut(extension, ";")
			if strings.TrimSpace(name) == "permessage-deflate" {
				d.used = true
				d.visitorForgets = strings.Contains(parameters, "client_no_context_takeover")
				d.answererForgets = strings.Contains(parameters, "server_no_context_takeover")
			}
		}
	}
	return d
}

// maxFrameHead is the longest head of a frame (RFC 6455, section 5.2).
const maxFrameHead = 14

// frames finds the messages in one direction of a WebSocket, whatever pieces its bytes
// come in. What breaks the protocol is shown as what it says it is.
type frames struct {
	deflate deflate

	head    [maxFrameHead]byte
	have    int    // bytes of head
	left    uint64 // of the payload
	inside  bool   // head is whole, and left to be read
	masked  bool
	key     [4]byte
	at      int     // in key
	opcode  byte    // of the frame
	final   bool    // the frame is a message's last
	current message // of data frames, over all its fragments
	control message
}

// forget gives back what is kept of messages that are under way.
func (f *frames) forget() { f.current.data, f.control.data = nil, nil }

// feed reads p, has each message that ends in it kept by rec, and returns how many.
func (f *frames) feed(p []byte, fromVisitor bool, rec *record) (messages int) {
	for len(p) > 0 || f.inside && f.left == 0 {
		if !f.inside {
			n := copy(f.head[f.have:f.need()], p)
			f.have += n
			p = p[n:]
			if f.have < f.need() {
				continue
			}
			f.begin(fromVisitor)
			continue
		}
		n := int(min(uint64(len(p)), f.left))
		f.take(p[:n], rec)
		p = p[n:]
		if f.left -= uint64(n); f.left > 0 {
			continue
		}
		f.inside, f.have = false, 0
		if m := f.message(); f.final {
			rec.say(*m)
			*m = message{}
			messages++
		}
	}
	return messages
}

// need is how long the head is, as far as that is known.
func (f *frames) need() int {
	if f.have < 2 {
		return 2
	}
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// begin reads a head.
func (f *frames) begin(fromVisitor bool) {
	f.inside, f.at = true, 0
	f.opcode, f.final, f.masked = f.head[0]&0x0f, f.head[0]&0x80 != 0, f.head[1]&0x80 != 0
	rest := f.head[2:f.have]
	switch n := f.head[1] & 0x7f; n {
	case 126:
		f.left, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	case 127:
		f.left, rest = binary.BigEndian.Uint64(rest), rest[8:]
	default:
		f.left = uint64(n)
	}
	if f.masked {
		copy(f.key[:], rest)
	}
	if f.opcode == opContinuation {
		return
	}
	forgets := f.deflate.answererForgets
	if fromVisitor {
		forgets = f.deflate.visitorForgets
	}
	*f.message() = message{
		at: time.Now(), fromVisitor: fromVisitor, kind: kindOf(f.opcode),
		deflated: f.deflate.used && f.head[0]&0x40 != 0, alone: forgets,
	}
}

// message is the one that the frame belongs to.
func (f *frames) message() *message {
	if f.opcode >= opClose {
		return &f.control // may come between the fragments of another
	}
	return &f.current
}

// take keeps a piece of a payload.
func (f *frames) take(p []byte, rec *record) {
	m := f.message()
	m.size += int64(len(p))
	at := f.at
	f.at = (at + len(p)) % 4
	n := min(len(p), rec.store.maxBody()-len(m.data))
	if n <= 0 || rec.forgotten {
		return
	}
	start, before := len(m.data), cap(m.data)
	m.data = append(m.data, p[:n]...)
	rec.grow(int64(cap(m.data) - before)) // it may be long until the message ends
	if f.masked {
		for i := range m.data[start:] {
			m.data[start+i] ^= f.key[(at+i)%4]
		}
	}
}
