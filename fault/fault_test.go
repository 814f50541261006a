package fault_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hozo-dev/hozo/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noCommand = &fault.Error{
	Code: "manifest/no-command", Kind: fault.Misuse, What: `service "mail" has no command`,
	Where: "hozo.yaml:14:1", Source: "  14 | mail:\n     | ^\n", Fix: "add run: ./mail",
}

func TestRenderTellsWhatWhereAndHowToFix(t *testing.T) {
	t.Parallel()
	full := &fault.Error{Code: "broker/no-room", What: "open the store", Err: errors.New("disk is full"), Fix: "free some space"}
	cases := map[string]error{
		"plain":   errors.New("something broke"),
		"full":    noCommand,
		"cause":   full,
		"wrapped": fmt.Errorf("start broker: %w", full),
		"bare":    &fault.Error{What: "nothing else is known"},
		"joined":  fmt.Errorf("check manifest: %w", errors.Join(noCommand, errors.New("second"), errors.Join(full))),
		"tree":    errors.Join(noCommand, errors.Join(errors.New("second"), full)),
	}
	for name, err := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := fault.Render(err)
			path := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(path)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("rendering (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorIsOneLineWithItsCause(t *testing.T) {
	t.Parallel()
	err := &fault.Error{What: "open the store", Where: "/data", Err: errors.New("disk is full")}
	if got, want := err.Error(), "/data: open the store: disk is full"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, err.Err) {
		t.Error("the cause is not in the chain")
	}
}

func TestCodeAndAsLookThroughWrapping(t *testing.T) {
	t.Parallel()
	wrapped := fmt.Errorf("read: %w", fmt.Errorf("check: %w", noCommand))
	if got := fault.Code(wrapped); got != "manifest/no-command" {
		t.Errorf("code is %q", got)
	}
	if e, ok := fault.As(wrapped); !ok || e != noCommand {
		t.Errorf("As gave %v, %v", e, ok)
	}
	if got := fault.Code(errors.New("plain")); got != "" {
		t.Errorf("a plain error has the code %q", got)
	}
	if got := fault.Code(nil); got != "" {
		t.Errorf("no error has the code %q", got)
	}
}

func TestExitCodeIsTwoForMisuseAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("plain"), 1},
		{&fault.Error{What: "failure"}, 1},
		{noCommand, 2},
		{fmt.Errorf("up: %w", noCommand), 2},
		{errors.Join(errors.New("plain"), noCommand), 2},
		{fmt.Errorf("up: %w", errors.Join(errors.New("plain"), noCommand)), 2},
	} {
		if got := fault.ExitCode(c.err); got != c.want {
			t.Errorf("exit code of %v is %d, want %d", c.err, got, c.want)
		}
	}
}

func TestFlattenGivesLeavesInOrder(t *testing.T) {
	t.Parallel()
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	got := fault.Flatten(errors.Join(a, errors.Join(b, c)))
	if len(got) != 3 || got[0] != a || got[1] != b || got[2] != c {
		t.Errorf("leaves are %v", got)
	}
	if fault.Flatten(nil) != nil {
		t.Error("no error has leaves")
	}
}
