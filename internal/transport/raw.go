package transport

import (
	"net"
	"net/http"

	"github.com/revtun/tunnel/pkg/protocol"
)

// acceptRaw is the server's end of [Raw]. Errors are as for [Accept].
func acceptRaw(w http.ResponseWriter, _ *http.Request) (net.Conn, error) {
	return takeOver(w, http.Header{
		"Connection": {"Upgrade"},
		"Upgrade":    {protocol.Upgrade},
	})
}

// dialRaw is the client's end of [Raw]: it asks for the upgrade with req
// on x. Errors are those of [Dialer.Dial].
func dialRaw(x *exchange, req *http.Request) (net.Conn, error) {
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol.Upgrade)
	if _, err := x.RoundTrip(req); err != nil {
		return nil, err
	}
	return x.conn, nil
}
