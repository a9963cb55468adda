package server

// For tests.
const (
	MaxConnects   = maxConnects
	SpareConnects = spareConnects
)
