package edge

import (
	"context"
	"errors"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Code is the code of an error of [Dial].
func Code(err error) protocol.Code {
	var said *protocol.Error
	switch {
	case errors.As(err, &said):
		return said.Code
	case errors.Is(err, context.DeadlineExceeded):
		return protocol.AppTimeout
	}
	return codeOf(err)
}
