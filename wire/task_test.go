package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/wire"
)

func TestFramedIDsAreReadAsWritten(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"A-0": "A 0", "A-17": "A 17", "A-B-9": "A-B 9", "A-01": "", "A--1": "A- 1", "A": "", "-1": "", "": "", "A-": "", "A-+1": "", "A-99999999999999999999": "",
	} {
		got := ""
		if frame, i, ok := wire.SplitFramedID(id); ok {
			got = fmt.Sprint(frame, " ", i)
		}
		if got != want {
			t.Errorf("%q is read as %q, want %q", id, got, want)
		}
	}
	subjects := map[string]uint64{
		wire.FrameSubject("a.queue", "one.kind", "10", "A"): 1, wire.FrameSubject("a.queue", "one.kind", "7", "B"): 2, wire.FrameSubject("a.queue", "other", "5", "C"): 1,
		wire.TaskSubject("a.queue", "one.kind", 2, "D"): 1, wire.ScheduleSubject("a.queue", "f", "10"): 1, wire.FrameSubject("a.queue", "one.kind", "many", "E"): 1,
	}
	for kind, want := range map[string][2]uint64{"one.kind": {3, 24}, "other": {1, 5}, "*": {4, 29}, "none": {}} {
		if frames, tasks := wire.FramedTasks(subjects, kind); frames != want[0] || tasks != want[1] {
			t.Errorf("%s: %d tasks in %d frames, want %v", kind, tasks, frames, want)
		}
	}
}

func TestTaskTokensAreOneToOne(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"ABC-1_x:y":      "ABC-1_x:y",
		"events.raw:1:2": "events%2Eraw:1:2",
		"100%*>":         "100%25%2A%3E",
		"a b":            "a%20b",
		"ä":              "%C3%A4",
	} {
		token := wire.TaskToken(id)
		if token != want {
			t.Errorf("token of %q is %q, want %q", id, token, want)
		}
		if back, err := wire.ParseTaskToken(token); err != nil || back != id {
			t.Errorf("%q reads back as %q, %v", token, back, err)
		}
	}
	for _, token := range []string{"", "a.b", "*", "%", "%2", "%2e", "%41", "a%GG", "a b"} {
		if id, err := wire.ParseTaskToken(token); err == nil {
			t.Errorf("%q reads as %q", token, id)
		}
	}
}

func FuzzParseTaskToken(f *testing.F) {
	for _, seed := range []string{"", "abc", "events%2Eraw:1:2", "%", "%25", "a.b", "%C3%A4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := wire.ParseTaskToken(token); err == nil {
			if back := wire.TaskToken(id); back != token {
				t.Errorf("%q reads as %q, which is written %q", token, id, back)
			}
		}
		written := wire.TaskToken(token)
		if strings.ContainsAny(written, ".*> \t\r\n") {
			t.Errorf("%q is written %q, which is no token", token, written)
		}
		if token == "" {
			return
		}
		if id, err := wire.ParseTaskToken(written); err != nil || id != token {
			t.Errorf("%q is written %q, which reads as %q, %v", token, written, id, err)
		}
	})
}

func TestTaskSubjects(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		wire.TaskSubject("mail", "mail.send", 2, "A1"):     "hozo.tasks.mail.q.mail_send.2.A1",
		wire.ScheduleSubject("mail.out", "mail.send", "A"): "hozo.tasks.mail_out.s.mail_send.A",
		wire.OutboxSubject("mail.out", "shop"):             "hozo.tasks.mail_out.o.shop",
		wire.RecordSubject("mail.send", "A"):               "hozo.record.r.mail_send.A",
		wire.UniqueSubject("mail.send", "h"):               "hozo.record.u.mail_send.h",
		wire.QueueSubjects("mail.out"):                     "hozo.tasks.mail_out.>",
		wire.TaskDurable("mail.send", 1):                   "mail_send@1",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if !wire.Covers(wire.QueueSubjects("mail"), wire.TaskSubject("mail", "mail.send", 2, "A1")) {
		t.Error("a task is not in its queue")
	}
}
