package edge

import (
	"bytes"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzWaiting holds what the edge follows of HTTP/2 to the frames that x/net/http2
// reads, however the bytes come.
func FuzzWaiting(f *testing.F) {
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	for _, write := range []func() error{
		func() error { return w.WriteSettings() }, func() error { return w.WritePing(false, [8]byte{}) },
		func() error {
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte("x")})
		},
		func() error { return w.WriteData(1, false, []byte("hello")) },
		func() error { return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3}) },
		func() error { return w.WriteContinuation(3, false, []byte("x")) }, func() error { return w.WriteContinuation(3, true, nil) },
		func() error { return w.WriteRSTStream(3, 0) }, func() error { return w.WriteData(5, true, nil) },
	} {
		if err := write(); err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(b.Bytes()), uint16(b.Len()/2))
		f.Add(bytes.Clone(b.Bytes()[:b.Len()-1]), uint16(9))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		var whole, bytewise, halved frames
		settled := whole.take(in)
		slowly := false
		for i := range in {
			slowly = bytewise.take(in[i:i+1]) || slowly
		}
		at := min(int(cut), len(in))
		first := halved.take(in[:at])
		second := halved.take(in[at:])
		if whole != bytewise || whole != halved || settled != slowly || settled != (first || second) {
			t.Fatalf("%x: at once %+v, %v; byte by byte %+v, %v; in two at %d %+v, %v, %v", in, whole, settled, bytewise, slowly, at, halved, first, second)
		}
		if want := waitsFor(in); whole.waiting() != want {
			t.Fatalf("%x: waiting is %v, want %v", in, whole.waiting(), want)
		}
	})
}

// waitsFor reports whether, by x/net/http2's reading, the peer owes the rest of a
// header section, its first one, or of a frame that is no body.
func waitsFor(in []byte) bool {
	r := bytes.NewReader(in)
	began, open := false, false
	for {
		if r.Len() == 0 {
			return !began || open
		}
		head, err := http2.ReadFrameHeader(r)
		if err != nil {
			return true // within a frame's header
		}
		open = open || head.Type == http2.FrameHeaders
		if n, _ := io.CopyN(io.Discard, r, int64(head.Length)); n < int64(head.Length) {
			return !began || open || head.Type != http2.FrameData
		}
		if (head.Type == http2.FrameHeaders || head.Type == http2.FrameContinuation) && head.Flags.Has(http2.FlagHeadersEndHeaders) {
			began, open = true, false
		}
	}
}
