package edge

import (
	"testing"
	"time"
)

// A visitor whose request was lost with its client hears of it within 2 s (R4).
func TestLostPark(t *testing.T) {
	if lostPark+notSentRetry >= 2*time.Second {
		t.Errorf("waits for %v", lostPark)
	}
}
