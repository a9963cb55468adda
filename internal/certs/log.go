package certs

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger carries certmagic's log to ours. What a program does there is told
// step by step, at levels that suit a program of its own: here it is all for
// debugging, but for errors that nobody gets returned, which are warnings.
func zapLogger(log *slog.Logger) *zap.Logger { return zap.New(&core{log: log}) }

// core is a [zapcore.Core] that writes to a [slog.Logger].
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled lets errors pass, and all else where debugging is on.
func (c *core) Enabled(l zapcore.Level) bool {
	if l >= zapcore.ErrorLevel {
		return c.log.Enabled(context.Background(), slog.LevelWarn)
	}
	return c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With returns a core that adds fields to each line.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{c.log, slices.Concat(c.fields, fields)}
}

// Check adds c to who writes the entry.
func (c *core) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.log.Enabled(context.Background(), level(e)) {
		return to.AddCore(e, c)
	}
	return to
}

// Write writes one line.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	all := zapcore.NewMapObjectEncoder()
	for _, f := range slices.Concat(c.fields, fields) {
		f.AddTo(all)
	}
	attrs := make([]slog.Attr, 0, len(all.Fields))
	for _, k := range slices.Sorted(maps.Keys(all.Fields)) {
		attrs = append(attrs, slog.Any(k, all.Fields[k]))
	}
	c.log.LogAttrs(context.Background(), level(e), "certmagic: "+e.Message, attrs...)
	return nil
}

// Sync has nothing to do: nothing is held back.
func (c *core) Sync() error { return nil }

// level of an entry. What goes wrong in an order is returned to who ordered.
func level(e zapcore.Entry) slog.Level {
	if e.Level < zapcore.ErrorLevel {
		return slog.LevelDebug
	}
	for _, returned := range []string{"obtain", "renew", "acme_client"} {
		if strings.Contains(e.LoggerName, returned) {
			return slog.LevelDebug
		}
	}
	return slog.LevelWarn
}
