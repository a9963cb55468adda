package tunnel

// LimitOpened makes the stream ids of c's sessions run out after n.
func LimitOpened(c *Client, n int) { c.maxOpened = n }

// Sessions is how many sessions d has.
func Sessions(d *Connector) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.live)
}
