package edge_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
)

// On all addresses an answer comes from the one that the visitor sent to, and from no
// other: a connected socket takes no other for an answer.
func TestUDPAnswersFromWhereItWasAsked(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "all"} {
		r := newUDPRig(t, &edge.UDP{Host: host})
		for i := range 3 {
			v, err := net.Dial("udp", fmt.Sprintf("127.0.0.%d:%d", i+2, r.port))
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			v.SetDeadline(time.Now().Add(udpPatience))
			fmt.Fprint(v, "question ", i)
			s := r.stream()
			if got, want := s.receive(t), fmt.Sprint("question ", i); got != want {
				t.Fatalf("the client got %q, want %q", got, want)
			}
			s.send(t, "answer")
			if got := heard(t, v); got != "answer" {
				t.Errorf("the visitor got %q", got)
			}
		}
	}
}
