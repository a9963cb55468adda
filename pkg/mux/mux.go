// Package mux carries many streams over one connection. It is the waist of the
// system: everything above it sees a [Session] and its streams, everything
// below it is a net.Conn.
//
// It speaks yamux, as github.com/hashicorp/yamux and go-yamux do, and is made for
// a tunnel: frames are gathered into few writes, and a small message passes by
// bulk (outbox.go); a stream's window follows the path, so that one stream fills
// it and the others do not wait (window.go); an idle session costs one goroutine
// and a few kilobytes. A silent peer is given up (any received byte is life, see
// [Config.KeepAlive]); a dead session is never a clean end (its streams read
// [ErrClosed], never io.EOF); and Close on a stream whose end was not read does
// not leave the peer's writer blocked.
//
// What a peer can make this side keep in memory is bounded, whatever it sends
// (S10):
//
//   - per stream, by what it was granted and nobody has read: 256 KiB, and at
//     most 16 MiB where the reader has kept up;
//   - per session, by that and 24 MiB for all windows that have grown beyond
//     256 KiB; by 192 KiB of answers that wait to be sent, and 24 bytes for each
//     stream that ends meanwhile; and while there is traffic, by two buffers of
//     64 KiB to write and one to read. A peer has at most Config.MaxStreams, or
//     what Session.Limit says, streams open, and as many again, up to 256, that were
//     not accepted yet;
//   - per process, by a [Budget] for what is unread in all sessions, and 16 KiB
//     beyond it for each stream.
//
// A peer that breaks the protocol, or asks for answers and does not take them,
// ends its session and no other.
package mux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Session is one connection with many streams. Its methods may be called from
// many goroutines.
type Session interface {
	// Open opens a stream. It waits while too many opened streams have not been
	// accepted by the peer. The error is ctx's, or wraps [ErrClosed] or
	// [ErrExhausted].
	Open(ctx context.Context) (Stream, error)
	// Accept waits for a stream that the peer opens, until the session ends:
	// the error wraps [ErrClosed]. A stream that was opened or accepted is to be
	// closed, also after the session's end: what arrived whole can be read until then,
	// and counts.
	Accept() (Stream, error)
	// Limit lets the peer have n streams open at once, in place of Config.MaxStreams.
	// Those that it has stay.
	Limit(n int)
	// Ping measures one round trip. The error is ctx's, wraps [ErrClosed], or is
	// os.ErrDeadlineExceeded where no answer came for a minute.
	Ping(ctx context.Context) (time.Duration, error)
	// Idle is how long nothing has arrived. Every received byte is life.
	Idle() time.Duration
	// Close ends the session at once: streams that are open read and write
	// [ErrClosed], at the peer too, and what was written last may never be sent.
	// Who needs that it arrives waits for the peer's answer first. Closing twice
	// is fine.
	Close() error
	// Done is closed when the session has ended, for whatever reason.
	Done() <-chan struct{}
	// Err says why the session ended, and is nil while it lives. It wraps
	// [ErrClosed], and [ErrSilent] where the peer was given up.
	Err() error
	// RemoteAddr is the address of the connection's other end.
	RemoteAddr() net.Addr
}

// Stream is one of the streams of a session: a net.Conn with half-close, where
// an end and an abort stay different things.
type Stream interface {
	net.Conn
	// CloseWrite ends the writing side: the peer reads io.EOF after what was
	// written. Reading goes on.
	CloseWrite() error
	// Reset aborts both directions: the peer reads and writes an error, never
	// io.EOF, even where data is still on the way.
	Reset() error
	// OnAbort has f called, on a goroutine of its own, when the peer aborts the
	// stream or the session ends, also where the peer has ended its side before, but
	// not once both sides have ended; and when the stream is reset for Config.Budget,
	// which takes what is unread then, too. Reset does not call it. stop takes that
	// back; it reports whether it did, before f was called.
	OnAbort(f func()) (stop func() bool)
}

// Errors of a session and its streams; each is wrapped with its cause.
var (
	// ErrClosed says that the session has ended.
	ErrClosed = errors.New("session closed")
	// ErrSilent says that the peer was given up: nothing came for Config.DeadAfter.
	ErrSilent = errors.New("peer is silent")
	// ErrReset says that a stream was aborted, by either end.
	ErrReset = errors.New("stream reset")
	// ErrOverBudget says that a stream was aborted on this side because too much
	// waited to be read, on it and on all others of Config.Budget. It wraps
	// ErrReset; the peer sees nothing but that.
	ErrOverBudget = fmt.Errorf("%w: too much of it was unread", ErrReset)
	// ErrExhausted says that the session has opened as many streams as it may. It
	// lives on, but another one is needed to open more.
	ErrExhausted = errors.New("the session may open no more streams")
)

// Config tunes a session. The zero value is good for both ends.
type Config struct {
	// KeepAlive is how often a ping is sent, shortened by up to a fifth at
	// random. Default 15 s, below the 60 s at which proxies on the way cut idle
	// connections. Negative switches the pings and DeadAfter off.
	KeepAlive time.Duration
	// DeadAfter is how long nothing may arrive before the peer is given up.
	// Default 40 s, so that it is noticed within 45. Less than KeepAlive and a
	// round trip gives up peers that are well.
	DeadAfter time.Duration
	// MaxStreams is how many streams the peer may have open at once; one more
	// is reset. Default 16,384.
	MaxStreams int
	// Refused is called, on a goroutine of its own, when the peer first opens a
	// stream more than MaxStreams, or Session.Limit. May be nil.
	Refused func()
	// MaxOpened is how many streams may be opened on this side in the session's
	// life; after that, Open returns [ErrExhausted]. Default, and at most: as many as
	// there are ids, 2,147,483,647.
	MaxOpened int
	// Spent is called once, on a goroutine of its own, when seven eighths of
	// MaxOpened were opened, so that the session can be replaced in time. May be
	// nil.
	Spent func()
	// Budget is what this session and others together may hold of what arrived and
	// was not read. Nil: each session is bounded on its own only.
	Budget *Budget
}
