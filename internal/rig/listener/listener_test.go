package listener

import (
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each connection is handled beside the others, and closed when it has been; one that waits for
// its peer ends with the test.
func TestTCP(t *testing.T) {
	var kept net.Conn
	t.Run("while it listens", func(t *testing.T) {
		addr := TCP(t, func(c net.Conn) {
			b := make([]byte, 1)
			if io.ReadFull(c, b); b[0] == '?' {
				c.Write([]byte("!"))
			}
		})
		dial := func() net.Conn {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		kept = dial()
		c := dial()
		defer c.Close()
		io.WriteString(c, "?")
		if b, err := io.ReadAll(c); string(b) != "!" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
	defer kept.Close()
	if b, err := io.ReadAll(kept); len(b) > 0 || err != nil {
		t.Errorf("got %q, %v when it ended", b, err)
	}
}
