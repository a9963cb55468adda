package capsule_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/revtun/tunnel/internal/capsule"
)

// Sizes around those at which a length takes more bytes.
func TestRoundTrip(t *testing.T) {
	var stream []byte
	sizes := []int{0, 1, 62, 63, 64, 1200, 1472, 16382, 16383, 16384, 65507, capsule.MaxPayload}
	for i, n := range sizes {
		stream = capsule.Append(stream, bytes.Repeat([]byte{byte(i + 1)}, n))
	}
	for name, source := range map[string]io.Reader{"whole": bytes.NewReader(stream), "by bytes": iotest.OneByteReader(bytes.NewReader(stream))} {
		r := capsule.NewReader(source)
		for i, want := range sizes {
			n, err := r.Next()
			if err != nil || n != want {
				t.Fatalf("%s: datagram %d has %d bytes and error %v, want %d", name, i, n, err, want)
			}
			b := make([]byte, n)
			if err := r.Payload(b); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i + 1)}, n)) {
				t.Fatalf("%s: datagram %d is another one, error %v", name, i, err)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: after the last one: %v, want io.EOF", name, err)
		}
	}
}

func TestReader(t *testing.T) {
	for name, tt := range map[string]struct {
		stream string // in hexadecimal, spaces are left out
		want   string // payloads, separated by commas
		err    error
	}{
		"empty":                            {"", "", io.EOF},
		"one":                              {"00 03 00 6869", "hi", io.EOF},
		"empty payload":                    {"00 01 00 00 02 00 61", ",a", io.EOF},
		"longer integers than need be":     {"4000 8000000a c000000000000000 6869", "hi", io.EOF},
		"unknown type":                     {"17 02 ffff 00 02 00 61", "a", io.EOF},
		"unknown type of eight bytes":      {"ff ffffffffffffff 01 ff 00 02 00 61", "a", io.EOF},
		"unknown type without a value":     {"17 00 00 02 00 61", "a", io.EOF},
		"unknown context":                  {"00 03 02 ffff 00 02 00 61", "a", io.EOF},
		"cut in the type":                  {"40", "", io.ErrUnexpectedEOF},
		"cut before the length":            {"00", "", io.ErrUnexpectedEOF},
		"cut in the length":                {"00 40", "", io.ErrUnexpectedEOF},
		"cut before the context":           {"00 02", "", io.ErrUnexpectedEOF},
		"cut in the payload":               {"00 04 00 6869", "", io.ErrUnexpectedEOF},
		"cut in what is skipped":           {"17 04 00", "", io.ErrUnexpectedEOF},
		"no context":                       {"00 00 00 02 00 61", "", capsule.ErrMalformed},
		"context longer than the datagram": {"00 01 4000", "", capsule.ErrMalformed},
		"payload of 65528 bytes":           {"00 8000fff9 00", "", capsule.ErrTooLarge},
		"payload of 2^62-2 bytes":          {"00 ffffffffffffffff 00", "", capsule.ErrTooLarge},
		"unknown type of 2^62-1 bytes":     {"17 ffffffffffffffff 00", "", capsule.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := hex.DecodeString(strings.ReplaceAll(tt.stream, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			all, err := readAll(bytes.NewReader(stream))
			if got := string(bytes.Join(all, []byte(","))); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, error %v, want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func readAll(source io.Reader) (all [][]byte, err error) {
	r := capsule.NewReader(source)
	for {
		n, err := r.Next()
		if err != nil {
			return all, err
		}
		b := make([]byte, n)
		if err := r.Payload(b); err != nil {
			return all, err
		}
		all = append(all, b)
	}
}

// FuzzReader holds the Reader to another one, made for this test, and what it read to
// the round trip.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{"", "00036869", "0003006869", "17020000000101", "4000800000030068", "00c000000000000001ff", "000102", "00bfffffff00"} {
		b, _ := hex.DecodeString(seed)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		got, err := readAll(iotest.HalfReader(bytes.NewReader(stream)))
		want, clean := plain(stream)
		if len(got) != len(want) || clean != (err == io.EOF) {
			t.Fatalf("%d datagrams, error %v; want %d, whole: %v", len(got), err, len(want), clean)
		}
		var again []byte
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("datagram %d is %x, want %x", i, got[i], want[i])
			}
			again = capsule.Append(again, got[i])
		}
		if back, err := readAll(bytes.NewReader(again)); err != io.EOF || len(back) != len(got) {
			t.Fatalf("of %d datagrams %d came back, error %v", len(got), len(back), err)
		}
	})
}

// plain reads all of a stream that is there, and says whether nothing is left.
func plain(b []byte) (all [][]byte, clean bool) {
	number := func() (n uint64, ok bool) {
		if len(b) == 0 || len(b) < 1<<(b[0]>>6) {
			return 0, false
		}
		size := 1 << (b[0] >> 6)
		for i, c := range b[:size] {
			if i == 0 {
				c &= 0x3f
			}
			n = n*256 + uint64(c)
		}
		b = b[size:]
		return n, true
	}
	for len(b) > 0 {
		kind, ok := number()
		length, ok2 := number()
		if !ok || !ok2 || length > uint64(len(b)) {
			return all, false
		}
		rest := b[length:]
		b = b[:length]
		if kind == 0 {
			context, ok := number()
			if !ok || context == 0 && len(b) > 65527 {
				return all, false
			}
			if context == 0 {
				all = append(all, b)
			}
		}
		if len(b) > 128<<10 { // what is left is a payload, or skipped
			return all, false
		}
		b = rest
	}
	return all, true
}
