package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// ErrNoDescription says that what answers at the server's address does not describe
// itself as our servers do. It is wrapped with what it did say.
var ErrNoDescription = errors.New("it is no tunnel server")

// Describe asks the server what it is and can do. The error wraps [ErrNoDescription]
// where something else answered, and is an [*UpgradeError] for a gateway that does not
// reach its server; all others are those of [Dialer.Dial].
func (d *Dialer) Describe(ctx context.Context) (*protocol.Description, error) {
	req, err := d.request(ctx, protocol.PathDescription, protocol.PathDescription)
	if err != nil {
		return nil, err
	}
	req.Header.Del("Authorization") // everybody is told
	req.Close = true
	var described protocol.Description
	conn, err := d.dial(ctx, func(x *exchange) (net.Conn, error) {
		start := time.Now()
		if err := req.Write(x.conn); err != nil {
			return nil, x.broken(0, interrupted(ctx, err))
		}
		resp, _, err := readAnswer(x.conn, req)
		if err != nil {
			return nil, x.broken(0, interrupted(ctx, err))
		}
		d.trace(start, Step{Stage: Answered, Head: resp.Header})
		switch resp.StatusCode {
		case http.StatusOK:
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return nil, x.refusal(resp)
		default:
			return nil, fmt.Errorf("%w: it answered %s", ErrNoDescription, statusText(resp.StatusCode))
		}
		if err := json.NewDecoder(resp.Body).Decode(&described); err != nil || described.Domain == "" {
			return nil, ErrNoDescription
		}
		return x.conn, nil
	})
	if err != nil {
		return nil, err
	}
	conn.Close()
	return &described, nil
}
