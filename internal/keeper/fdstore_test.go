//go:build linux

package keeper_test

import (
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// fetch ends a process and returns what playFetch in its place prints.
func (k *kept) fetch(name string) string {
	k.t.Helper()
	if err := k.client.Kill(limited(k.t), name); err != nil {
		k.t.Fatal(err)
	}
	if err := k.client.Forget(limited(k.t), name); err != nil {
		k.t.Fatal(err)
	}
	before := k.log(name)
	k.spawn(name, "fetch", nil)
	for {
		if p := k.await(keeper.EventExited, name).Process; p.Exit.Signal == 0 {
			return strings.TrimPrefix(k.log(name), before)
		}
	}
}

func TestStoredDescriptorsComeBackInTheNextRun(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("a", "deposit", notifying, "kept", "2", "FDNAME=state")
	if e := k.await(keeper.EventNotify, "a"); e.Process.Stored != 2 {
		t.Errorf("stored: %+v", e.Process)
	}
	k.spawn("b", "deposit", notifying, "other", "1")
	k.await(keeper.EventNotify, "b")
	const want = "pid true names state:state\n0 kept EOF\n1 kept EOF\n"
	for range 2 { // it is not used up
		if got := k.fetch("a"); got != want {
			t.Errorf("a fetches %q", got)
		}
	}
	if got := k.fetch("b"); got != "pid true names stored\n0 other EOF\n" {
		t.Errorf("b fetches %q", got)
	}
	if err := k.client.Unstore(limited(t), "a"); err != nil {
		t.Fatal(err)
	}
	if got := k.fetch("a"); got != "pid false names \n" {
		t.Errorf("after unstore a fetches %q", got)
	}
}

func TestStoredDescriptorsAreBounded(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("a", "deposit", notifying, "x", "100", "FDPOLL=0")
	if e := k.await(keeper.EventNotify, "a"); e.Process.Stored != 64 {
		t.Errorf("%d of 100 are stored", e.Process.Stored)
	}
}

func TestStoredDescriptorThatHangsUpIsDropped(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("a", "deposit", notifying, "", "0", "FDNAME=pipe")
	k.await(keeper.EventNotify, "a")
	until(t, "pipe to be dropped", func() bool { return k.record("a").Stored == 0 })
	k.spawn("b", "deposit", notifying, "", "0", "FDNAME=pipe", "FDPOLL=0")
	if e := k.await(keeper.EventNotify, "b"); e.Process.Stored != 1 {
		t.Errorf("stored: %+v", e.Process)
	}
	if p := k.record("b"); p.Stored != 1 {
		t.Error("one that is not to be polled is dropped")
	}
}

func TestStoredDescriptorsAreRemovedByName(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("a", "deposit", notifying, "x", "1", "FDNAME=one")
	k.await(keeper.EventNotify, "a")
	k.fetch("a")
	if err := k.client.Forget(limited(t), "a"); err != nil {
		t.Fatal(err)
	}
	k.spawn("a", "notify", notifying, "FDSTOREREMOVE=1\nFDNAME=two", "FDSTOREREMOVE=1\nFDNAME=one")
	for _, want := range []int{1, 0} {
		if e := k.await(keeper.EventNotify, "a"); e.Process.Stored != want {
			t.Errorf("after %q %d are stored, not %d", e.Notify, e.Process.Stored, want)
		}
	}
}

// What a process says just before it ends counts, however soon its end is seen.
func TestLastWordsOfAProcessAreHeard(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for range 50 {
		p := k.spawn("a", "last", notifying, "STATUS=last word")
		for {
			e := k.await(keeper.EventExited, "a")
			if e.Process.Run != p.Run {
				continue
			}
			if e.Process.Status != "last word" {
				t.Fatalf("it ended as %+v", e.Process)
			}
			break
		}
		if err := k.client.Forget(limited(t), "a"); err != nil {
			t.Fatal(err)
		}
	}
}
