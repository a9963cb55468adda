package certs

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/rig/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pebble.Goroutines()...) }
