package protocol

import (
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"fmt"
	"strings"
)

//go:embed names.txt
var nameWords string

// RandomName makes a name that can be read aloud, such as "calm-otter-4711". It
// is not a secret: 64 × 64 × 10,000 names.
func RandomName() string {
	adjectives, nouns, _ := strings.Cut(strings.TrimSpace(nameWords), "\n\n")
	var b [12]byte
	rand.Read(b[:])
	pick := func(list string, b []byte) string {
		words := strings.Fields(list)
		return words[binary.LittleEndian.Uint32(b)%uint32(len(words))]
	}
	return fmt.Sprintf("%s-%s-%04d", pick(adjectives, b[0:]), pick(nouns, b[4:]), binary.LittleEndian.Uint32(b[8:])%10_000)
}
