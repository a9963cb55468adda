package rig

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestCutAfter(t *testing.T) {
	for _, tt := range []struct {
		name string
		how  Break
		end  error
	}{
		{"reset", Reset, syscall.ECONNRESET},
		{"finish", Finish, io.EOF},
		{"half-close", HalfClose, io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, visitor, app := testPath(t)
			done := p.CutAfter(Back, 70_001, tt.how)
			go app.Write(make([]byte, 200_000))
			n, err := io.Copy(io.Discard, visitor)
			if err == nil {
				err = io.EOF
			}
			if !errors.Is(err, tt.end) {
				t.Errorf("the visitor read %v, want %v", err, tt.end)
			}
			if tt.how != Reset && n != 70_001 || n > 70_001 { // a reset overtakes what was not read
				t.Errorf("the visitor read %d bytes, want 70,001", n)
			}
			<-done
			if tt.how != HalfClose {
				return
			}
			if _, err := visitor.Write([]byte("on")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 2)
			if _, err := io.ReadFull(app, got); err != nil || string(got) != "on" {
				t.Errorf("after the half-close the app read %q, %v", got, err)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	p, visitor, app := testPath(t)
	p.Silence(There, true)
	visitor.Write([]byte("x"))
	app.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := app.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v through a silent link", n, err)
	}
	app.Write([]byte("y"))
	got := make([]byte, 1)
	if _, err := io.ReadFull(visitor, got); err != nil {
		t.Fatalf("the other direction: %v", err)
	}
	p.Silence(There, false)
	app.SetReadDeadline(time.Now().Add(Patience))
	if _, err := io.ReadFull(app, got); err != nil || !bytes.Equal(got, []byte("x")) {
		t.Errorf("after the silence the app read %q, %v", got, err)
	}
}

func TestCut(t *testing.T) {
	p, visitor, app := testPath(t)
	visitor.Write([]byte("x"))
	io.ReadFull(app, make([]byte, 1))
	p.Cut()
	for _, c := range []io.Reader{visitor, app} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the cut: %v, want a reset", err)
		}
	}
}
