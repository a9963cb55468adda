package mux

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// TestSocketTakesPart: small writes to a socket that takes only a part of a
// batch, or nothing, arrive whole and in order.
func TestSocketTakesPart(t *testing.T) {
	const streams, pieces = 16, 50
	c, s := tcpConns(t)
	c.(*net.TCPConn).SetWriteBuffer(32 << 10)
	s.(*net.TCPConn).SetReadBuffer(32 << 10)
	defer s.Close()
	client, err := Client(c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	piece := bytes.Repeat([]byte("0123456789"), 300)
	var writing sync.WaitGroup
	for range streams {
		st, err := client.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		writing.Go(func() {
			for range pieces {
				if _, err := st.Write(piece); err != nil {
					t.Error(err)
				}
			}
			st.CloseWrite()
		})
	}
	got := make(map[uint32]*bytes.Buffer)
	s.SetReadDeadline(time.Now().Add(time.Minute))
	for ended := 0; ended < streams; {
		h, body := readFrame(t, s)
		if h.id == 0 {
			continue
		}
		if got[h.id] == nil {
			got[h.id] = new(bytes.Buffer)
		}
		got[h.id].Write(body)
		if h.flags&flagFIN != 0 {
			ended++
		}
	}
	writing.Wait()
	for id, b := range got {
		if !bytes.Equal(b.Bytes(), bytes.Repeat(piece, pieces)) {
			t.Errorf("stream %d: %d bytes came, or others than the %d that were written", id, b.Len(), pieces*len(piece))
		}
	}
}

func readFrame(t *testing.T, r io.Reader) (header, []byte) {
	t.Helper()
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	h := header{b[1], binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])}
	if h.kind != typeData {
		return h, nil
	}
	body := make([]byte, h.length)
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatal(err)
	}
	return h, body
}
