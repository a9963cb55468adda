package mux

import "encoding/binary"

// The frames of yamux: twelve bytes of header, big endian, and the payload of a
// data frame. https://github.com/hashicorp/yamux/blob/master/spec.md
const (
	headerSize = 12

	typeData   = 0 // length: of the payload that follows
	typeWindow = 1 // length: how many bytes more may be sent
	typePing   = 2 // length: any number, which the answer has too
	typeGoAway = 3 // length: why; 0 is a normal end

	flagSYN = 1 // a new stream; a ping
	flagACK = 2 // the stream was accepted; a ping's answer
	flagFIN = 4 // the end of what the sender has to say
	flagRST = 8 // the end of the stream, by an abort

	// maxFrame is the longest frame that is sent. It is what one stream may send
	// before the next one's turn.
	maxFrame = 16 << 10

	// initialWindow is how much a stream may send before it has been granted
	// anything.
	initialWindow = 256 << 10
)

type header struct {
	kind   byte
	flags  uint16
	id     uint32
	length uint32
}

// parseHeader reads the header at the front of b. ok is false where it is of
// another version than ours.
func parseHeader(b []byte) (h header, ok bool) {
	_ = b[headerSize-1]
	return header{
		kind:   b[1],
		flags:  binary.BigEndian.Uint16(b[2:]),
		id:     binary.BigEndian.Uint32(b[4:]),
		length: binary.BigEndian.Uint32(b[8:]),
	}, b[0] == 0
}

func appendHeader(b []byte, h header) []byte {
	b = append(b, 0, h.kind)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint32(b, h.id)
	return binary.BigEndian.AppendUint32(b, h.length)
}
