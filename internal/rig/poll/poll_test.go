package poll

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// failed is a test that notes why it fails, and ends its goroutine there as tests do.
type failed struct {
	testing.TB
	why string
}

func (f *failed) Helper() {}

func (f *failed) Fatalf(format string, args ...any) {
	f.why = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, begin := 0, time.Now()
		Until(t, "asked four times", func() bool { asked++; return asked == 4 })
		if took := time.Since(begin); took != 7*time.Millisecond { // 1, 2 and 4
			t.Errorf("it took %v", took)
		}
	})
}

func TestUntilGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f failed
		ended := make(chan struct{})
		begin := time.Now()
		go func() {
			defer close(ended)
			Until(&f, "pigs fly", func() bool { return false })
			t.Error("it returns")
		}()
		<-ended
		if took := time.Since(begin); took < Patience || took > Patience+time.Second || f.why != "not within 30s: pigs fly" {
			t.Errorf("after %v: %q", took, f.why)
		}
	})
}
