package edge

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Half a second of net/http's own, after an answer to what it could not parse.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}
