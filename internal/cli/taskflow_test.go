package cli

import (
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/node"
)

func TestWorkflowIsPrintedAsATree(t *testing.T) {
	t.Parallel()
	one := func(name, state string, after ...int) node.FlowTask {
		return node.FlowTask{Name: name, After: after, TaskStatus: node.TaskStatus{State: state, Kind: "k"}}
	}
	tasks := []node.FlowTask{
		one("fetch", "done"), one("small", "done", 0), one("large", "dead", 0), one("join", "blocked", 1, 2), one("beside", "running"), one("alert", "done", 0, 1, 2),
	}
	tasks[2].Error, tasks[4].Note, tasks[4].Progress, tasks[5].OnFailure = "no memory", "half", 50, true
	var out strings.Builder
	printFlow(&out, tasks)
	want := strings.Join([]string{
		"fetch\tdone\tk\t",
		"├─ small\tdone\tk\t",
		"└─ large\tdead\tk\tno memory",
		"   ├─ join\tblocked\tk\tafter small too",
		"   └─ alert\tdone\tk\twhen one of these fails: fetch small large",
		"beside\trunning\tk\t50% half",
		"",
	}, "\n")
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
