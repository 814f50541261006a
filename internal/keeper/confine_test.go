//go:build linux

package keeper_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

// eachTrees runs a test with every way to hold trees together that this host has.
func eachTrees(t *testing.T, test func(t *testing.T, trees string)) {
	for _, trees := range []string{keeper.TreesCgroup, keeper.TreesFreezer, keeper.TreesProcess} {
		t.Run(trees, func(t *testing.T) {
			t.Parallel()
			test(t, trees)
		})
	}
}

// stops is how many trees a test ends; HOZO_STOPS makes it the 1,000 that a release is tried with.
func stops(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("HOZO_STOPS"))
	if os.Getenv("HOZO_STOPS") == "" {
		return 24
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Every tree has a child in the group, one in a session of its own, one that was left by a double fork, all deaf to TERM,
// and one without an environment. Half of the leaders exit by themselves, first.
func TestNothingOfATreeSurvives(t *testing.T) {
	t.Parallel()
	eachTrees(t, func(t *testing.T, trees string) {
		k := startKeeperWith(t, treesVar+"="+trees)
		const atOnce = 4
		all := stops(t)
		rounds := make(chan int, all) // every one at once, for a failed worker takes none
		for i := range all {
			rounds <- i
		}
		close(rounds)
		var wg sync.WaitGroup
		for range atOnce {
			wg.Go(func() {
				for i := range rounds {
					endOneTree(t, k, trees, i)
				}
			})
		}
		wg.Wait()
		k.spawn("last", "wait", nil)
		groups := groupsOf(t, k)
		if len(groups) == 0 && trees != keeper.TreesProcess {
			t.Error("no cgroup was used")
		}
		for _, dir := range groups {
			until(t, "the groups of all but the last to be removed", func() bool { return len(incarnations(t, dir)) == 1 })
		}
		if err := k.client.Shutdown(limited(t)); err != nil {
			t.Fatal(err)
		}
		<-k.client.Done()
		for _, dir := range groups {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is left", dir)
			}
		}
		t.Logf("%d trees ended by %s", all, trees)
	})
}

func endOneTree(t *testing.T, k *kept, trees string, i int) {
	dir, err := os.MkdirTemp("", "tree")
	if err != nil {
		t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	name, how, members := fmt.Sprintf("family%d", i), "stay", 5
	if i%2 == 1 {
		how = "leave-bare"
		if trees == keeper.TreesProcess {
			how, members = "leave", 4 // a bare one that is orphaned before anybody looks cannot be told apart by /proc
		}
	}
	if _, err := k.trySpawn(name, "stem", nil, dir, how); err != nil {
		t.Error(err)
		return
	}
	until(t, name+" to grow", func() bool { return len(marks(dir)) == members })
	if how == "stay" {
		if err := k.client.Kill(limited(t), name); err != nil {
			t.Error(err)
		}
	}
	var exit *keeper.Exit
	until(t, name+" to end", func() bool {
		exit = k.record(name).Exit
		return exit != nil
	})
	if len(exit.Survivors) > 0 {
		t.Errorf("%s: exit %+v", name, *exit)
	}
	for _, m := range marks(dir) {
		if lives(m) {
			t.Errorf("%s: %q lives on", name, m)
		}
	}
	if err := k.client.Forget(limited(t), name); err != nil {
		t.Error(err)
	}
}

// groupsOf are the folders of a keeper's cgroups.
func groupsOf(t *testing.T, k *kept) []string {
	t.Helper()
	var ids struct{ Groups []string }
	if err := json.NewDecoder(bytes.NewReader(read(t, k.state, "keeper.json"))).Decode(&ids); err != nil {
		t.Fatal(err)
	}
	return ids.Groups
}

func incarnations(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, e.Name())
		}
	}
	return all
}

// keeper.json is lost, the leader is gone, and one of the tree has no environment: the cgroup is all that tells.
func TestNextKeeperEndsLeftoversByTheirCgroup(t *testing.T) {
	t.Parallel()
	for _, trees := range []string{keeper.TreesCgroup, keeper.TreesFreezer} {
		t.Run(trees, func(t *testing.T) {
			t.Parallel()
			k := startKeeperWith(t, treesVar+"="+trees)
			dir := t.TempDir()
			k.spawn("family", "stem", func(s *keeper.Spawn) { s.Notify = true }, dir, "stay")
			k.await(keeper.EventNotify, "family")
			groups := groupsOf(t, k)
			k.killBoth()
			if err := syscall.Kill(number(strings.Fields(string(read(t, dir, "stem")))[0]), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(k.state + "/keeper.json"); err != nil {
				t.Fatal(err)
			}
			startKeeperIn(t, k.state) // whatever way it holds trees together itself
			for _, m := range marks(dir) {
				if lives(m) {
					t.Errorf("%q outlived the next keeper's start", m)
				}
			}
			for _, group := range groups {
				if below := incarnations(t, group); len(below) > 0 {
					t.Errorf("%s still has %v", group, below)
				}
			}
		})
	}
}

// A keeper that is killed with its standby alive leaves its cgroups to the next, which ends trees by them as before.
func TestAdoptedTreeEndsByItsCgroup(t *testing.T) {
	t.Parallel()
	eachTrees(t, func(t *testing.T, trees string) {
		k := startKeeperWith(t, treesVar+"="+trees)
		dir := t.TempDir()
		k.spawn("family", "stem", func(s *keeper.Spawn) { s.Notify = true }, dir, "stay")
		k.await(keeper.EventNotify, "family")
		k.killOne(activeKeeper)
		if err := k.client.Kill(limited(t), "family"); err != nil {
			t.Fatal(err)
		}
		checkGone(t, 0, dir, 5)
	})
}

func TestUnknownTreesAreRefused(t *testing.T) {
	t.Parallel()
	_, err := keeper.New(keeper.Config{State: "/s", Trees: "telepathy"})
	if fault.Code(err) != "keeper/bad-request" {
		t.Error(err)
	}
}
