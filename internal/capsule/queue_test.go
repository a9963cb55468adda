package capsule_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/revtun/tunnel/internal/capsule"
)

// What waits is bounded, what came first is what is kept, in its order, and the
// budget is whole again in the end.
func TestQueueIsBounded(t *testing.T) {
	all := &capsule.Budget{Max: 1 << 20}
	mine := &capsule.Budget{Max: 100 << 10, Parent: all}
	q := capsule.NewQueue(mine)
	took := 0
	for i := range 1000 {
		if q.Put(bytes.Repeat([]byte{byte(i)}, 1000)) {
			if took != i {
				t.Fatalf("datagram %d was taken after one had been refused", i)
			}
			took++
		}
	}
	if took < 95 || took > 102 || mine.Used() > mine.Max || mine.Used() != all.Used() {
		t.Fatalf("%d datagrams of 1000 bytes wait, %d and %d bytes of %d are used", took, mine.Used(), all.Used(), mine.Max)
	}
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- q.Run(near) }()
	r := capsule.NewReader(far)
	for i := range took {
		n, err := r.Next()
		b := make([]byte, n)
		if err == nil {
			err = r.Payload(b)
		}
		if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, 1000)) {
			t.Fatalf("datagram %d is another one, error %v", i, err)
		}
	}
	if !q.Put(nil) {
		t.Error("a queue that was full takes nothing any more")
	}
	if n, err := r.Next(); n != 0 || err != nil {
		t.Errorf("an empty datagram has %d bytes, error %v", n, err)
	}
	q.Close()
	far.Close()
	if err := <-done; err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if q.Put([]byte("x")) || mine.Used() != 0 || all.Used() != 0 {
		t.Errorf("closed, it takes more or holds %d and %d bytes", mine.Used(), all.Used())
	}
}

// The budget that all share bounds each of them, and one that is refused takes nothing.
func TestQueuesShareABudget(t *testing.T) {
	all := &capsule.Budget{Max: 50 << 10}
	first, second := capsule.NewQueue(&capsule.Budget{Max: 40 << 10, Parent: all}), capsule.NewQueue(&capsule.Budget{Max: 40 << 10, Parent: all})
	if !first.Put(make([]byte, 30<<10)) || second.Put(make([]byte, 30<<10)) || !second.Put(make([]byte, 10<<10)) {
		t.Error("60 KiB fit where 50 are shared, or 40 do not")
	}
	first.Close()
	if !second.Put(make([]byte, 25<<10)) {
		t.Error("what a closed queue held is not given back")
	}
	second.Close()
	if all.Used() != 0 {
		t.Errorf("%d bytes are left", all.Used())
	}
}

// What is a budget's own is there also where others have used up what is shared.
func TestBudgetOfItsOwn(t *testing.T) {
	all := &capsule.Budget{Max: 20 << 10}
	greedy := capsule.NewQueue(&capsule.Budget{Max: 1 << 20, Own: 10 << 10, Parent: all})
	modest := capsule.NewQueue(&capsule.Budget{Max: 1 << 20, Own: 10 << 10, Parent: all})
	kept := 0
	for greedy.Put(make([]byte, 1000)) {
		kept++
	}
	if kept < 29 || kept > 31 {
		t.Errorf("one queue took %d KB of 10 of its own and 20 that are shared", kept)
	}
	for i := range 10 {
		if !modest.Put(make([]byte, 1000)) {
			t.Errorf("the other has %d KB of its own 10", i)
			break
		}
	}
	if modest.Put(make([]byte, 1000)) {
		t.Error("what is shared was used up, and there is more")
	}
	greedy.Close()
	modest.Close()
	if all.Used() != 0 {
		t.Errorf("%d bytes are left", all.Used())
	}
}

// A writer that fails ends the queue.
func TestQueueEndsWithItsWriter(t *testing.T) {
	budget := &capsule.Budget{Max: 1 << 20}
	q := capsule.NewQueue(budget)
	near, far := net.Pipe()
	far.Close()
	q.Put([]byte("x"))
	if err := q.Run(near); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Run: %v", err)
	}
	if q.Put([]byte("y")) || budget.Used() != 0 {
		t.Errorf("it takes more, or holds %d bytes", budget.Used())
	}
}
