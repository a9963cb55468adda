package rig

import (
	"testing"
	"time"
)

func TestCPUOf(t *testing.T) {
	const stat = "12 (a) name) S 1 12 12 0 -1 4194560 1 2 3 4 250 51 7 8 20 0 9 0 100 1 2 3"
	if got, want := cpuOf(stat), 3010*time.Millisecond; got != want {
		t.Errorf("cpuOf = %v, want %v", got, want)
	}
	if got := cpuOf("12 (name) S 1"); got != 0 {
		t.Errorf("cpuOf of a short line = %v", got)
	}
}
