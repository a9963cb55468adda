package inspect

import (
	"bytes"
	"time"
)

// events finds the events in a stream of them (HTML, section 9.2.5): blocks of lines with
// an empty line behind. Lines end in CR, LF or both.
type events struct {
	block []byte // the beginning of the one that is under way
	size  int64
	empty bool // the line has no byte so far
	cr    bool // the last byte was CR
}

// feed reads p, has each event that ends in it kept by rec, and returns how many.
func (e *events) feed(p []byte, rec *record) (messages int) {
	for _, b := range p {
		if b == '\n' && e.cr {
			e.cr = false // the second half of an end that was seen
			continue
		}
		e.cr = b == '\r'
		if b != '\n' && b != '\r' {
			e.empty = false
			e.take(b, rec)
			continue
		}
		if !e.empty {
			e.empty = true
			e.take('\n', rec)
			continue
		}
		if e.size > 0 {
			rec.say(message{at: time.Now(), kind: "event", data: bytes.TrimSuffix(e.block, []byte("\n")), size: e.size - 1})
			messages++
		}
		e.block, e.size = nil, 0
	}
	return messages
}

func (e *events) take(b byte, rec *record) {
	e.size++
	if len(e.block) < rec.store.maxBody() && !rec.forgotten {
		before := cap(e.block)
		e.block = append(e.block, b)
		rec.grow(int64(cap(e.block) - before)) // it may be long until the event ends
	}
}
