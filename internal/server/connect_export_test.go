package server

// Remembered is how much the sessions know of their claims beside the names that they
// have.
func (s *Server) Remembered() (n int) {
	for _, one := range s.all() {
		one.mu.Lock()
		n += len(one.routes) + len(one.byRight) + len(one.domains)
		one.mu.Unlock()
	}
	return n
}

// For tests.
const (
	MaxConnects   = maxConnects
	SpareConnects = spareConnects
)
