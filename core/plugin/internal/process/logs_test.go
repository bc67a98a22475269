package process

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func newTestLogs() (*Logs, *bytes.Buffer, *time.Time) {
	var out bytes.Buffer
	now := time.Unix(1_000_000, 0)
	l := NewLogs(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	l.now = func() time.Time { return now }
	return l, &out, &now
}

func TestLinesAreReadAsWritten(t *testing.T) {
	for line, want := range map[string]string{
		`plain`: `level=INFO msg=plain`,
		`{"time":"2024-01-01T00:00:00Z","level":"WARN","msg":"m","vm":"a","n":3,"list":[1,2]}`: `level=WARN msg=m list=[1,2] n=3 vm=a`,
		`{"@level":"trace","@message":"m","@module":"x","@timestamp":"t"}`:                     `level=DEBUG msg=m module=x`,
		`{"@level":"error","@message":1}`:                                                      `level=INFO msg="{\"@level\":\"error\",\"@message\":1}"`,
		`{"level":"info"}`:                                                                     `level=INFO msg="{\"level\":\"info\"}"`,
		`[1]`:                                                                                  `level=INFO msg=[1]`,
		"a\x1b[31mb":                                                                           "level=INFO msg=\"a\ufffd[31mb\"",
	} {
		l, out, _ := newTestLogs()
		fmt.Fprintln(l.Stderr(), line)
		if got := strings.TrimSpace(out.String()); got != want {
			t.Errorf("%s:\n got %s\nwant %s", line, got, want)
		}
	}
}

func TestPanicIsTheLastWord(t *testing.T) {
	l, out, _ := newTestLogs()
	w := l.Stderr()
	fmt.Fprint(w, "fine so far\npanic: no such thing\n\ngoroutine 1 [running]:\nmain.main()\n")
	if l.LastWords() != "panic: no such thing" {
		t.Errorf("last words: %q", l.LastWords())
	}
	if !strings.Contains(out.String(), "level=ERROR msg=main.main()") {
		t.Errorf("the trace is not an error: %s", out)
	}
	l.begin()
	fmt.Fprintln(w, "again")
	if l.LastWords() != "again" {
		t.Errorf("last words: %q", l.LastWords())
	}
}

func TestLogsAreBounded(t *testing.T) {
	l, out, now := newTestLogs()
	w := l.Stderr()
	for range 10 * burstLines {
		fmt.Fprintln(w, "line")
	}
	if n := strings.Count(out.String(), "msg=line"); n != burstLines {
		t.Errorf("%d lines were logged, want %d", n, burstLines)
	}
	l.Flush()
	if want := fmt.Sprintf("lines_left_out=%d", 9*burstLines); !strings.Contains(out.String(), want) {
		t.Errorf("no %s in the log", want)
	}
	out.Reset()
	*now = now.Add(2 * time.Second)
	for range 1000 {
		fmt.Fprintln(w, "line")
	}
	if n := strings.Count(out.String(), "msg=line"); n != 2*linesPerSecond {
		t.Errorf("%d lines were logged after 2s, want %d", n, 2*linesPerSecond)
	}
	// Long lines use up the bytes.
	l, out, _ = newTestLogs()
	long := strings.Repeat("x", maxLine) + "\n"
	w = l.Stderr()
	for range 1000 {
		fmt.Fprint(w, long)
	}
	if n := out.Len(); n > burstBytes+burstBytes/8 {
		t.Errorf("%d bytes were logged", n)
	}
	l.Flush()
}

func TestLinesOfAnyLength(t *testing.T) {
	var got []string
	w := &LineWriter{line: func(b []byte) { got = append(got, string(b)) }}
	for _, part := range []string{"a", "b\n", "\n", "c\r\nd\n", strings.Repeat("x", maxLine), strings.Repeat("y", 5000), "\nend"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	w.Flush()
	want := []string{"ab", "c", "d", strings.Repeat("x", maxLine) + " [5000 bytes more]", "end"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %.100q", got)
	}
}

func TestHandshakeAmongNoise(t *testing.T) {
	l, out, _ := newTestLogs()
	h := newHandshake(l)
	read := make(chan string)
	go func() {
		var b bytes.Buffer
		b.ReadFrom(h.pipe)
		read <- b.String()
	}()
	fmt.Fprint(h, "hello\n1|x|unix|a\n1|2|3\n1|0|unix|/s|grpc|\n1|0|unix|/other|grpc|\nbye\n")
	if got := <-read; got != "1|0|unix|/s|grpc|\n" {
		t.Errorf("go-plugin was given %q", got)
	}
	if n := strings.Count(out.String(), "printed to standard output"); n != 5 {
		t.Errorf("%d warnings: %s", n, out)
	}
	if _, protocol, ok := h.versions(); !ok || protocol != 0 {
		t.Errorf("versions: %d, %v", protocol, ok)
	}
}
