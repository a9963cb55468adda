package proxy

import (
	"net/http"
	"testing"
)

func TestTally(t *testing.T) {
	seen := make(chan Tally, 1)
	app := newApp(t, func(c *appConn) {
		for {
			head := c.head()
			if head == "" {
				return
			}
			switch head[5] {
			case 'a':
				c.send("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\nhi")
			case 'u':
				c.send(switched)
				return
			case 'e':
				c.send(tooLarge)
			}
		}
	})
	tr := &Transport{Dial: dialer(app.addr())}
	defer tr.CloseIdle()
	addr := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tally := &Tally{ResponseWriter: w}
		Forward(tally, r, tr, Options{})
		tally.ResponseWriter = nil
		seen <- *tally
	}))
	for request, want := range map[string]Tally{
		"GET /a HTTP/1.1\r\nHost: a\r\n\r\n":                                        {Status: 404, Bytes: 2},
		"GET /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x/1\r\n\r\n": {Status: 101},
		"PUT /e HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n":                   {Status: 413, Bytes: 3},
	} {
		v := visit(t, addr, request)
		v.head("GET")
		v.Close()
		if got := within(t, "end", seen); got != want {
			t.Errorf("%q: %+v, want %+v", request, got, want)
		}
	}
}
