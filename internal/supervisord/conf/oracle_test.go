package conf

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// python is the interpreter that Debian's package supervisor installs itself for.
const python = "/usr/bin/python3"

// oracle is the real Supervisor's Python, asked over a pipe. Safe for concurrent use.
type oracle struct {
	mu  sync.Mutex
	in  *json.Encoder
	out *bufio.Reader
}

// reply is an answer; which field is set depends on the question.
type reply struct {
	Error    *string         `json:"error"`
	Value    json.RawMessage `json:"value"`
	Sections json.RawMessage `json:"sections"`
	raw      []byte
}

func newOracle(t testing.TB) *oracle {
	t.Helper()
	cmd := exec.Command(python, "-W", "ignore", "testdata/oracle.py")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint lockedBuffer
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v (run make deps)", python, err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the oracle ended with %v (run make deps if supervisor is not installed):\n%s", err, complaint.String())
		}
	})
	return &oracle{in: json.NewEncoder(in), out: bufio.NewReader(out)}
}

// ask sends a question and decodes its answer.
func (o *oracle) ask(t testing.TB, question map[string]any) reply {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.in.Encode(question); err != nil {
		t.Fatalf("ask the oracle: %v (run make deps if supervisor is not installed)", err)
	}
	line, err := o.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("hear the oracle: %v (run make deps if supervisor is not installed)", err)
	}
	r := reply{raw: line}
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	return r
}

// text asks one of the simple questions about a text.
func (o *oracle) text(t testing.TB, ask, text string) reply {
	t.Helper()
	return o.ask(t, map[string]any{"ask": ask, "text": text})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*lockedBuffer)(nil)

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// equal fails t when ours and theirs differ as JSON.
func equal(t testing.TB, input string, ours any, theirs json.RawMessage) {
	t.Helper()
	var a, b any
	text, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(theirs, &b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, a); diff != "" {
		t.Fatalf("for %q theirs (-) is not ours (+):\n%s", input, diff)
	}
}
