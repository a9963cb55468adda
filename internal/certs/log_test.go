package certs

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestLog(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug} {
		var out bytes.Buffer
		log := zapLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})))
		log.Named("maintenance").With(zap.Strings("names", []string{"a\nb"})).Error("lost", zap.Error(errors.New("no\x1b disk")))
		log.Named("obtain").Error("returned")
		log.Info("a step")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if want := map[slog.Level]int{slog.LevelInfo: 1, slog.LevelDebug: 3}[level]; len(lines) != want {
			t.Fatalf("%d lines, want %d:\n%s", len(lines), want, &out)
		}
		for _, want := range []string{"level=WARN", `"certmagic: lost"`, `error="no\x1b disk"`, `a\nb`} {
			if !strings.Contains(lines[0], want) {
				t.Errorf("%s is not in %s", want, lines[0])
			}
		}
	}
}
