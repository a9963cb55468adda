package inspect

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// maxDecoded bounds what a body is decompressed to, in bytes.
const maxDecoded = 8 << 20

var errTooLarge = errors.New("decompressed it is too large to be shown")

// errOverBudget is of a body that is given as it was kept.
var errOverBudget = errors.New("not decompressed, as all that was asked for is too large: see it alone")

// decodeWithin is decode that takes what it has decoded off left, and decodes nothing where
// that could come to more.
func decodeWithin(body []byte, coding string, left *int64) ([]byte, error) {
	if coding == "" || len(body) == 0 {
		return body, nil
	}
	most := maxDecoded * int64(strings.Count(coding, ",")+1)
	if *left < most {
		return nil, errOverBudget
	}
	text, err := decode(body, coding)
	if most == maxDecoded && len(text) > 0 {
		most = int64(len(text)) // else more may have been decoded than is seen here
	}
	*left -= most
	return text, err
}

// decode takes content codings off (RFC 9110, section 8.4). With an error comes what
// could be read before it: a body may not have been kept whole.
func decode(body []byte, coding string) ([]byte, error) {
	codings := strings.Split(coding, ",")
	for i := len(codings) - 1; i >= 0; i-- {
		name := strings.ToLower(strings.TrimSpace(codings[i]))
		if name == "" || name == "identity" {
			continue
		}
		var err error
		if body, err = decodeOne(body, name); err != nil {
			return body, err
		}
	}
	return body, nil
}

func decodeOne(body []byte, coding string) ([]byte, error) {
	r, err := decoder(bytes.NewReader(body), coding)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", coding, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxDecoded+1))
	switch {
	case len(text) > maxDecoded:
		return text[:maxDecoded], errTooLarge
	case err != nil:
		return text, fmt.Errorf("%s: %w", coding, err)
	}
	return text, nil
}

func decoder(r *bytes.Reader, coding string) (io.ReadCloser, error) {
	switch coding {
	case "gzip", "x-gzip":
		return gzip.NewReader(r)
	case "deflate":
		// Some send it without the header of zlib that it is to have.
		if z, err := zlib.NewReader(r); err == nil {
			return z, nil
		}
		r.Seek(0, io.SeekStart)
		return flate.NewReader(r), nil
	case "br":
		return io.NopCloser(brotli.NewReader(r)), nil
	case "zstd":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4*maxDecoded))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, errors.New("a content coding that is not known")
}
