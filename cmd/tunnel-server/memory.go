package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/pace"
)

const (
	// defaultShare is the default of --memory-limit: the rest is for the kernel's
	// buffers of the connections, the program's text, and what else runs there.
	defaultShare = "80%"
	// minMemory is the least limit that is taken, in bytes: below it the server
	// would refuse most of its work.
	minMemory = 64 << 20
)

// memory is the limit that --memory-limit says. available is what the machine,
// or the container, has, in bytes; 0: not known.
func memory(c *cli.Context, available uint64) (*pace.Memory, error) {
	from, value := "--memory-limit", c.String("memory-limit")
	if value == "" {
		from, value = "GOMEMLIMIT", os.Getenv("GOMEMLIMIT") // whoever set it meant this process
	}
	if value == "" {
		// It needs no least size: there is no more.
		n, err := size(defaultShare, available)
		if err != nil {
			return nil, nil
		}
		return &pace.Memory{Limit: n}, nil
	}
	n, err := size(value, available)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s %q: %w", from, value, err)
	case n == 0:
		return nil, nil
	case n < minMemory:
		return nil, fmt.Errorf("%s %q is %d bytes, which is too little to serve with: give --memory-limit 64MiB at least, or off", from, value, n)
	}
	return &pace.Memory{Limit: n}, nil
}

// units are in bytes. Without a B they are those of container tools, which count
// by 1,024.
var units = []struct {
	name  string
	bytes float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
	{"b", 1},
}

// size reads "512MiB", "0.5 GB", "80%" of available, and "off", which is 0.
func size(s string, available uint64) (uint64, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "off" || s == "none" {
		return 0, nil
	}
	if share, ok := strings.CutSuffix(s, "%"); ok {
		n, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
		switch {
		case err != nil || !(n > 0 && n <= 100):
			return 0, fmt.Errorf("a share is more than 0%% and at most 100%%")
		case available == 0:
			return 0, fmt.Errorf("how much memory there is can't be read on this system: give a size such as 512MiB")
		}
		return uint64(float64(available) * n / 100), nil
	}
	unit := 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if bytes := n * unit; err == nil && bytes >= 0 && bytes < math.MaxInt64 {
		return uint64(bytes), nil
	}
	return 0, fmt.Errorf("give a size such as 512MiB or 2GB, a share such as 80%%, or off")
}
