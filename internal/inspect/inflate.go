package inspect

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"slices"
	"strings"
)

const (
	windowSize = 32 << 10
	// maxInflated bounds what one message is inflated to, in bytes.
	maxInflated = 4 << 20
	// maxCaughtUp bounds what those are inflated to that were given up since somebody looked
	// last, in bytes.
	maxCaughtUp = 32 << 20
)

var (
	errNotWhole = errors.New("compressed, and a part that it refers to was not kept")
	errInflated = errors.New("compressed, and too large to be shown")
)

// The sender leaves the end of a message's last block out (RFC 7692, section 7.2.1), and
// none is the last of the stream.
const (
	blockEnd  = "\x00\x00\xff\xff"
	streamEnd = "\x01\x00\x00\xff\xff"
)

// inflater follows the compression of one direction (RFC 7692, section 7.2.2): a
// message may refer to the last 32 KiB of those before it.
type inflater struct {
	window  []byte
	past    []byte // messages behind window that were given up, as one stream
	through int64  // bytes that were past, and are in window now
	lost    bool   // a message was not kept whole: the later ones cannot be read
}

// weight is what i keeps, in bytes.
func (i *inflater) weight() int64 { return int64(cap(i.window) + cap(i.past)) }

// skip goes past a message that is given up. It is not inflated, as what passes waits for
// this, but kept until somebody looks: as long as those before it are no more than most, in
// bytes.
func (i *inflater) skip(m message, most int) {
	switch {
	case !m.deflated || m.alone || i.lost:
	case int64(len(m.data)) < m.size, len(i.past)+len(m.data)+len(blockEnd) > most:
		*i = inflater{lost: true}
	default:
		i.past = append(append(i.past, m.data...), blockEnd...)
	}
}

// catchUp goes through what is past, and takes what that says off left. It reports false
// where there was too little of that, and whoever has more may try again.
func (i *inflater) catchUp(left *int64) (settled bool) {
	if len(i.past) == 0 {
		return true
	}
	limit := min(maxCaughtUp, *left)
	past := bytes.NewReader(slices.Concat(i.past, []byte(streamEnd)))
	last := tail(slices.Clip(i.window))
	n, err := io.Copy(&last, io.LimitReader(flate.NewReaderDict(past, i.window), limit+1))
	*left -= min(n, limit)
	if err != nil || n > limit || past.Len() > 0 {
		*i = inflater{lost: true}
		return n <= limit || limit == maxCaughtUp
	}
	i.window, i.through, i.past = last, i.through+int64(len(i.past)), nil
	return true
}

// tail is the last of what was written to it, as much as a message may refer to.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	all := append(*t, p...)
	*t = bytes.Clone(all[max(0, len(all)-windowSize):])
	return len(p), nil
}

// caughtUp keeps for those who look later what one has found who began at was. rec.mu is
// held.
func (i *inflater) caughtUp(was, found inflater) {
	if i.lost || i.through != was.through {
		return // another was quicker
	}
	rest := i.past[len(was.past):]
	*i = found
	if !i.lost {
		i.past = bytes.Clone(rest)
	}
}

// inflate returns what a message says, and takes the bytes off left, which it keeps to. An
// error is of what cannot be read.
func (i *inflater) inflate(m message, left *int64) ([]byte, error) {
	limit := min(maxInflated, *left)
	if limit <= 0 {
		i.lost = true
		return nil, errInflated
	}
	if m.alone {
		i.window, i.lost = nil, false
	}
	if i.lost || int64(len(m.data)) < m.size {
		i.lost = true
		return nil, errNotWhole
	}
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(m.data), strings.NewReader(blockEnd+streamEnd)), i.window)
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	*left -= int64(len(text))
	if err == nil && int64(len(text)) > limit {
		err = errInflated
	}
	if err != nil {
		i.lost = true
		return nil, err
	}
	window := tail(slices.Clip(i.window))
	window.Write(text)
	i.window = window
	return text, nil
}
