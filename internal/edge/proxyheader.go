package edge

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	proxyproto "github.com/pires/go-proxyproto"
)

const (
	// signature begins a header of the PROXY protocol, version 2, and no request and
	// no handshake.
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	// maxProxyHeader bounds what may follow its first 16 bytes. Addresses take 36, and
	// what is said of TLS hundreds.
	maxProxyHeader = 4 << 10
)

// errUnsigned is of a connection of which too little came to tell whether it begins
// with a header.
var errUnsigned = errors.New("read a PROXY header")

// proxied reports whether c comes from one of proxies, and so may begin with a header
// of the PROXY protocol.
func proxied(proxies []netip.Prefix, c net.Conn) bool {
	if len(proxies) == 0 {
		return false
	}
	a, ok := address(c.RemoteAddr().String())
	return ok && slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// readProxyHeader reads the header that c begins with, if it does, and not a byte
// more. What it returns has the visitor's address, or the connection's where the
// header names none: the proxy's own health checks. One that is begun must be right.
// With [errUnsigned] it returns c, too, with what was read.
func readProxyHeader(c tcpConn) (tcpConn, error) {
	head := make([]byte, len(signature)+4)
	n := 0
	for n < len(signature) {
		more, err := c.Read(head[n:len(signature)])
		n += more
		if string(head[:n]) != signature[:n] {
			return &ahead{wrapper: wrapper{c}, first: head[:n]}, nil
		}
		if err != nil {
			return &ahead{wrapper: wrapper{c}, first: head[:n]}, fmt.Errorf("%w: %w", errUnsigned, err)
		}
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return nil, fmt.Errorf("read a PROXY header: %w", err)
	}
	length := int(binary.BigEndian.Uint16(head[len(head)-2:]))
	if length > maxProxyHeader {
		return nil, errors.New("a PROXY header is too long")
	}
	whole := append(head, make([]byte, length)...)
	if _, err := io.ReadFull(c, whole[len(head):]); err != nil {
		return nil, fmt.Errorf("read a PROXY header: %w", err)
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(whole), len(whole)))
	if err != nil {
		return nil, fmt.Errorf("read a PROXY header: %w", err)
	}
	from, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok || h.Command.IsLocal() {
		return c, nil
	}
	return &ahead{wrapper: wrapper{c}, remote: from}, nil
}
