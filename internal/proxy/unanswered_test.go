package proxy

import (
	"errors"
	"io"
	"testing"
)

// Only a request that may be repeated, and of whose answer nothing came, is said
// to be unanswered: whoever hears that may send it again (R5).
func TestUnanswered(t *testing.T) {
	for _, tt := range []struct {
		method, body, answer string
		want                 bool
	}{
		{"GET", "", "", true},
		{"HEAD", "", "", true},
		{"GET", "", "H", false},
		{"GET", "", "HTTP/1.1 103 Early Hints\r\n\r\n", false},
		{"GET", "x", "", false},
		{"POST", "", "", false},
		{"DELETE", "", "", false},
	} {
		t.Run(tt.method+tt.body+" "+tt.answer, func(t *testing.T) {
			app := newApp(t, func(c *appConn) {
				c.request()
				io.WriteString(c, tt.answer)
			})
			tr := &Transport{Dial: dialer(app.addr())}
			if _, err := call(t, tr, tt.method, tt.body); errors.Is(err, ErrUnanswered) != tt.want {
				t.Errorf("got %v, want ErrUnanswered: %v", err, tt.want)
			}
		})
	}
}
