package task

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/wire"
)

func FuzzParseAck(f *testing.F) {
	for _, seed := range []string{
		"$JS.ACK.s.c.1.2.3.4.5", "$JS.ACK.d.a.s.c.1.2.3.4.5.r", "$JS.ACK.s.c.0.2.3.4.5", "$JS.ACK.s.c.1.2.3.4.99999999999999999999", "$JS.ACK.", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		seq, delivered, stored, err := parseAck(reply)
		if err == nil && (seq == 0 || delivered == 0 || stored.IsZero()) {
			t.Errorf("%q reads as %d, %d, %v", reply, seq, delivered, stored)
		}
		if err != nil && seq != 0 {
			t.Errorf("%q reads as %d and %v", reply, seq, err)
		}
	})
}

func FuzzParseDelivery(f *testing.F) {
	f.Add("hozo.tasks.q.q.k.2.id", "2", "1", "2026-01-02T03:04:05Z", "done:abc")
	f.Add("hozo.tasks.q.q.k.9.id", "-1", "x", "never", "done:")
	f.Add("x", "", "", "", "start:a.b")
	f.Add("..2.", "1073741825", "0", "", ":")
	f.Fuzz(func(t *testing.T, subject, number, failed, expires, unique string) {
		d, err := parseDelivery(&nats.Msg{Subject: subject, Reply: "$JS.ACK.s.c.1.7.3.4.5", Header: nats.Header{
			wire.HeaderCopy: {number}, wire.HeaderAttempts: {failed}, wire.HeaderExpires: {expires}, wire.HeaderUnique: {unique},
		}})
		if d.seq != 7 || d.delivered != 1 {
			t.Errorf("read as message %d, delivery %d", d.seq, d.delivered)
		}
		if err != nil {
			return
		}
		if d.copy < 1 || d.failed < 0 || d.priority < High || d.priority > Low || d.id == "" || wire.TaskToken(d.id) != d.token {
			t.Errorf("%q reads as %+v", subject, d)
		}
		if hash := d.lock(untilDone) + d.lock(untilStart); (hash == "") != (unique == "") {
			t.Errorf("%q locks %q", unique, hash)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("running", "1", "2", "2026-01-02T03:04:05Z", "images.1", []byte("{}"))
	f.Add("", "-1", "x", "never", "a\nb", []byte(nil))
	f.Fuzz(func(t *testing.T, state, number, strikes, due, text string, data []byte) {
		r, err := parseRecord(nats.Header{
			wire.HeaderState: {state}, wire.HeaderCopy: {number}, wire.HeaderStrikes: {strikes}, headerDue: {due}, wire.HeaderError: {text}, headerNote: {text},
		}, data)
		if err != nil {
			return
		}
		if r.copy < 1 || r.strikes < 0 {
			t.Errorf("read as %+v", r)
		}
		back, err := parseRecord(r.header(), r.result)
		if err != nil || back.state != r.state || back.copy != r.copy || back.strikes != r.strikes || !back.due.Equal(r.due) || back.err != oneLine(r.err) {
			t.Errorf("%+v is written as %+v, %v", r, back, err)
		}
	})
}
