package edge

import "github.com/revtun/tunnel/internal/datagram"

// Stats counts from when port was opened; all is zero where it is not.
func (u *UDP) Stats(port int) datagram.Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.ports[port]; p != nil {
		return p.Stats()
	}
	return datagram.Stats{}
}
