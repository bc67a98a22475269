package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core/plugin/internal/wire"
)

// What a plugin may write into the agent's log: bursts, and what comes back
// per second. It is enough for a trace and little enough for a disk.
const (
	burstLines, linesPerSecond = 1000, 50
	burstBytes, bytesPerSecond = 1 << 20, 32 << 10
	maxLine                    = 8 << 10
	maxAttrs                   = 32
)

// Logs brings what a plugin writes into the agent's log, within limits. What
// exceeds them is read all the same, so that the plugin never blocks on it,
// and counted.
type Logs struct {
	logger *slog.Logger
	now    func() time.Time

	mu           sync.Mutex
	lines, bytes float64 // tokens
	filled       time.Time
	dropped      int
	report       *time.Timer
	panicking    bool
	lastWords    string
}

// NewLogs writes to logger, which should name the plugin.
func NewLogs(logger *slog.Logger) *Logs {
	return &Logs{logger: logger, now: time.Now, lines: burstLines, bytes: burstBytes}
}

// Stderr takes standard error: records of hclog or slog in JSON, or text.
func (l *Logs) Stderr() *LineWriter { return &LineWriter{line: l.stderr} }

// Stdout takes what should not have been written to standard output.
func (l *Logs) Stdout() *LineWriter { return &LineWriter{line: l.Stray} }

// begin forgets what an earlier process said; its use of the limits counts on.
func (l *Logs) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.panicking, l.lastWords = false, ""
}

// LastWords is the line that tells best why the plugin died.
func (l *Logs) LastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastWords
}

// Flush reports what was left out so far.
func (l *Logs) Flush() {
	l.mu.Lock()
	n := l.dropped
	l.dropped = 0
	if l.report != nil {
		l.report.Stop()
		l.report = nil
	}
	l.mu.Unlock()
	if n > 0 {
		l.logger.Warn("a plugin writes more than is logged", "lines_left_out", n)
	}
}

// allow spends tokens on a line.
func (l *Logs) allow(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	passed := now.Sub(l.filled).Seconds()
	l.filled = now
	l.lines = min(burstLines, l.lines+passed*linesPerSecond)
	l.bytes = min(burstBytes, l.bytes+passed*bytesPerSecond)
	if l.lines < 1 || l.bytes < float64(n) {
		l.dropped++
		if l.report == nil {
			l.report = time.AfterFunc(10*time.Second, l.Flush)
		}
		return false
	}
	l.lines--
	l.bytes -= float64(n)
	return true
}

func (l *Logs) stderr(line []byte) {
	level := slog.LevelInfo
	if bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: ")) {
		l.mu.Lock()
		l.panicking, l.lastWords = true, wire.Text(string(line[:min(len(line), 300)]))
		l.mu.Unlock()
	}
	l.mu.Lock()
	if l.panicking {
		level = slog.LevelError // a trace follows
	}
	l.mu.Unlock()
	if !l.allow(len(line)) {
		return
	}
	if r, ok := parseRecord(line); ok {
		l.logger.LogAttrs(context.Background(), r.level, r.message, r.attrs...)
		l.say(r.message)
		return
	}
	text := wire.Text(string(line))
	l.logger.Log(context.Background(), level, text)
	l.say(text)
}

func (l *Logs) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.panicking && text != "" {
		l.lastWords = text[:min(len(text), 300)]
	}
}

// Stray logs a line of standard output.
func (l *Logs) Stray(line []byte) {
	if len(line) > 0 && l.allow(len(line)) {
		l.logger.Warn("a plugin printed to standard output, which carries the handshake; it should use standard error", "text", wire.Text(string(line)))
	}
}

type record struct {
	level   slog.Level
	message string
	attrs   []slog.Attr
}

// parseRecord reads what the JSON forms of hclog and slog write.
func parseRecord(line []byte) (record, bool) {
	if len(line) == 0 || line[0] != '{' {
		return record{}, false
	}
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		return record{}, false
	}
	take := func(keys ...string) string {
		for _, k := range keys {
			if s, ok := fields[k].(string); ok {
				delete(fields, k)
				return s
			}
		}
		return ""
	}
	message, level := take("@message", "msg"), take("@level", "level")
	if message == "" || level == "" {
		return record{}, false
	}
	take("@timestamp", "time")
	r := record{message: wire.Text(message), level: parseLevel(level)}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if len(r.attrs) == maxAttrs {
			break
		}
		v := fields[k]
		switch v.(type) {
		case string, bool, float64, nil:
		default:
			b, _ := json.Marshal(v)
			v = string(b)
		}
		if s, ok := v.(string); ok {
			v = wire.Text(s)
		}
		r.attrs = append(r.attrs, slog.Any(wire.Text(strings.TrimPrefix(k, "@")), v))
	}
	return r, true
}

func parseLevel(s string) slog.Level {
	switch strings.ToLower(s) {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// LineWriter cuts a stream into lines of at most 8 KiB; what a line has more
// is left out.
type LineWriter struct {
	line func([]byte)
	buf  []byte
	over int
}

// Write never fails.
func (w *LineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		room := min(len(part), maxLine-len(w.buf))
		w.buf = append(w.buf, part[:room]...)
		w.over += len(part) - room
		if i < 0 {
			break
		}
		p = p[i+1:]
		w.Flush()
	}
	return n, nil
}

// Flush ends the line.
func (w *LineWriter) Flush() {
	if w.over > 0 {
		w.buf = fmt.Appendf(w.buf, " [%d bytes more]", w.over)
	}
	if len(w.buf) > 0 {
		w.line(bytes.TrimSuffix(w.buf, []byte("\r")))
	}
	w.buf, w.over = w.buf[:0], 0
}
