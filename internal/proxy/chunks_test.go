package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"
)

func chunksOf(r io.Reader, maxTrailer int64) (*chunks, *http.Response) {
	limit := &io.LimitedReader{R: r, N: math.MaxInt64}
	res := new(http.Response)
	return &chunks{r: bufio.NewReaderSize(limit, bufferSize), limit: limit, maxTrailer: maxTrailer, res: res}, res
}

func TestChunks(t *testing.T) {
	const in = "3\r\nabc\r\n0000000a ; ext=\"1\"\r\n0123456789\r\nF\t\r\n" + "fifteen bytes.." + "\r\n0;x\r\nX-A: 1\r\nX-A: 2\r\nX-B: 3\r\n\r\nrest"
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)), "halves": iotest.HalfReader(strings.NewReader(in)),
	} {
		c, res := chunksOf(r, 1<<10)
		got, err := io.ReadAll(c)
		if string(got) != "abc0123456789fifteen bytes.." || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got := strings.Join(fields(res.Trailer), "|"); got != "X-A: 1|X-A: 2|X-B: 3" {
			t.Errorf("%s: trailers %q", name, got)
		}
		if n, err := c.Read(make([]byte, 9)); n != 0 || err != io.EOF {
			t.Errorf("%s: after the end %d, %v", name, n, err)
		}
		c.limit.N = math.MaxInt64
		if rest, _ := io.ReadAll(c.r); string(rest) != "rest" {
			t.Errorf("%s: rest %q", name, rest)
		}
	}
}

func TestTrailerSize(t *testing.T) {
	in := "0\r\nX-A: " + strings.Repeat("x", 5*bufferSize) + "\r\n\r\n"
	c, res := chunksOf(strings.NewReader(in), int64(len(in)))
	if _, err := io.ReadAll(c); err != nil || len(res.Trailer.Get("X-A")) != 5*bufferSize {
		t.Errorf("%v, %d bytes", err, len(res.Trailer.Get("X-A")))
	}
	c, res = chunksOf(strings.NewReader(in), 2*bufferSize)
	if _, err := io.ReadAll(c); err == nil || res.Trailer != nil {
		t.Errorf("%v, %d bytes", err, len(res.Trailer.Get("X-A")))
	}
}

// A body that ends anywhere before its end is not complete, however it is read.
func TestChunksCut(t *testing.T) {
	const in = "3;x\r\nabc\r\n2\r\nde\r\n0\r\nX-A: 1\r\n\r\n"
	for n := range in {
		for _, end := range []error{io.EOF, errors.New("broken")} {
			c, _ := chunksOf(io.MultiReader(strings.NewReader(in[:n]), iotest.ErrReader(end)), 1<<10)
			if b, err := io.ReadAll(c); err == nil {
				t.Errorf("%q: %q and a clean end", in[:n], b)
			}
		}
	}
}

// FuzzChunks holds chunks to what net/http's reader says.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"3\r\nabc\r\n0\r\n\r\n", "a;x=y\r\n0123456789\r\n0\r\nX-A: 1\r\n\r\n", "0\r\n\r\n", "", "\r\n", "1\na\r\n0\r\n\r\n",
		"1\r\nab\r\n0\r\n\r\n", "-1\r\n", "0x1\r\na\r\n0\r\n\r\n", "7fffffffffffffff\r\na", "ffffffffffffffff\r\na", "1 \r\na\r\n0\r\n\r\n", " 1\r\na\r\n0\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, _ := chunksOf(bytes.NewReader(in), 1<<10)
		got, err := io.ReadAll(c)
		one, _ := chunksOf(iotest.OneByteReader(bytes.NewReader(in)), 1<<10)
		slow, slowErr := io.ReadAll(one)
		// What is read ahead of the trailer section does not count against its limit.
		if errors.Is(err, errTrailer) != errors.Is(slowErr, errTrailer) {
			return
		}
		if !bytes.Equal(got, slow) || (err == nil) != (slowErr == nil) {
			t.Errorf("at once %q, %v; byte by byte %q, %v", got, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		if bytes.Contains(in, []byte(" ;")) || bytes.Contains(in, []byte("\t;")) {
			return // is to be taken (RFC 9112, section 7.1.1), and net/http does not
		}
		if want, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in))); !bytes.Equal(got, want) || err != nil {
			t.Errorf("got %q, want %q, %v", got, want, err)
		}
	})
}
