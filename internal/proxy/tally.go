package proxy

import (
	"bufio"
	"net"
	"net/http"
)

// Tally is an http.ResponseWriter that remembers what was answered, for logs.
type Tally struct {
	http.ResponseWriter
	Status int   // 0 until there is one; 101 once the connection was taken over
	Bytes  int64 // of the body
}

// WriteHeader notes the final status.
func (t *Tally) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		t.Status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write counts the body.
func (t *Tally) Write(p []byte) (int, error) {
	n, err := t.ResponseWriter.Write(p)
	t.Bytes += int64(n)
	return n, err
}

// Hijack notes that the answer is given past it, unless it has begun already.
func (t *Tally) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if t.Status == 0 {
		t.Status = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(t.ResponseWriter).Hijack()
}

// Unwrap is for http.ResponseController.
func (t *Tally) Unwrap() http.ResponseWriter { return t.ResponseWriter }
