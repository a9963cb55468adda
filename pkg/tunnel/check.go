package tunnel

import "context"

// Validate reports whether the fields can be used, as far as that shows without a
// server. The error is a [*ConfigError].
func (c *Client) Validate() error {
	_, err := c.dialer()
	return err
}

// Check connects to the server, says who it is, and leaves: whether the server lets this
// client in. It claims nothing. It makes one attempt, which ctx bounds; the errors are
// those of [Client.Listen].
func (c *Client) Check(ctx context.Context) error {
	dialer, err := c.dialer()
	if err != nil {
		return err
	}
	if c.Transport == PTTH {
		return errNoStreams()
	}
	s, err := c.link(dialer).connect(ctx, nil)
	if err != nil {
		return listenError(ctx, err)
	}
	s.farewell()
	return nil
}
