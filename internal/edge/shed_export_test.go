package edge

// IdleGrace is how long a connection is left idle where descriptors are lacking.
const IdleGrace = idleGrace

// Conns is how many connections g knows.
func Conns(g *Gate) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}
