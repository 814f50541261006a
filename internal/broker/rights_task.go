package broker

import (
	"fmt"
	"slices"

	"github.com/hozo-dev/hozo/wire"
)

// handles gives what a worker needs: the consumers of its kinds, their records, and the way to a task's next copy.
func (r *rights) handles(g wire.Grant) {
	for _, kind := range g.Handles {
		queue := g.QueueOf(kind).Name
		js := wire.StreamName(wire.QueueStream(queue))
		for _, durable := range wire.TaskDurables(kind) {
			r.consumer("handles", kind, js, durable)
		}
		r.add(Subscribe, "handles", kind, "hear what is cancelled", wire.NoteSubject(kind))
		r.add(Publish, "handles", kind, "say that a task has begun or left a limited queue", wire.PaceSubject(queue))
		r.tasks("handles", kind, queue)
		r.commit("handles", kind, js, powerful(g))
	}
}

// enqueues gives what it takes to store tasks, to wait for them and to cancel them.
func (r *rights) enqueues(g wire.Grant) {
	for _, kind := range g.Enqueues {
		queue := g.QueueOf(kind).Name
		r.add(Publish, "enqueues", kind, "look whether there is room", "$JS.API.STREAM.INFO."+wire.StreamName(wire.QueueStream(queue)))
		r.add(Publish, "enqueues", kind, "tell whoever runs it that it is cancelled", wire.NoteSubject(kind))
		r.add(Subscribe, "enqueues", kind, "hear how tasks end", wire.ChangeSubject(kind, "*"))
		outbox := wire.OutboxSubject(queue, g.Service)
		r.add(Publish, "enqueues", kind, "relay an outbox", outbox, directGet(wire.QueueStream(queue), outbox))
		r.tasks("enqueues", kind, queue)
		r.commit("enqueues", kind, wire.StreamName(wire.QueueStream(queue)), powerful(g))
	}
}

// tasks gives the subjects of one kind's tasks and records.
func (r *rights) tasks(key, kind, queue string) {
	records := wire.StreamName(wire.RecordStream)
	runnable := fmt.Sprintf("%s.%s.q.%s.*.*", wire.TaskStream, wire.StreamName(queue), wire.StreamName(kind))
	scheduled := wire.ScheduleSubject(queue, kind, "*")
	framed := wire.FrameSubject(queue, kind, "*", "*")
	if key == "enqueues" {
		r.add(Publish, key, kind, "queue tasks", runnable, framed)
	} else {
		r.add(Publish, key, kind, "take frames of tasks apart", runnable)
	}
	r.add(Publish, key, kind, "queue tasks for later", scheduled)
	waiting := wire.WaitPrefix(queue) + wire.StreamName(kind) + ".*.*.*"
	r.add(Publish, key, kind, "have tasks wait in a limited queue", waiting)
	r.add(Publish, key, kind, "find a task that waits", directGet(wire.QueueStream(queue), waiting))
	r.add(Publish, key, kind, "find a task by its id", directGet(wire.QueueStream(queue), runnable), directGet(wire.QueueStream(queue), framed), directGet(wire.QueueStream(queue), scheduled))
	r.add(Publish, key, kind, "record what becomes of a task", wire.RecordSubject(kind, "*"))
	r.add(Publish, key, kind, "record who has a frame, and that tasks of it are cancelled", wire.FrameRecordSubject(kind, "*"), wire.FrameMarkSubject(kind, "*"))
	r.add(Publish, key, kind, "keep a task unique", wire.UniqueSubject(kind, "*"))
	r.add(Publish, key, kind, "keep what its steps have made", wire.StepSubject(kind, "*"))
	r.add(Publish, key, kind, "tell a workflow how far it is", wire.NodeSubject(kind, "*"), wire.FlowSubject("*"))
	for _, subject := range []string{
		wire.RecordSubject(kind, "*"), wire.UniqueSubject(kind, "*"), wire.StepSubject(kind, "*"), wire.NodeSubject(kind, "*"), wire.FlowSubject("*"),
		wire.FrameRecordSubject(kind, "*"), wire.FrameMarkSubject(kind, "*"),
	} {
		r.add(Publish, key, kind, "read a record", "$JS.API.DIRECT.GET."+records+"."+subject)
	}
}

// powerful reports whether a grant has to do with streams of durability power: then its tasks and records must be on
// disk, too, as they stand for what is in those streams.
func powerful(g wire.Grant) bool {
	return slices.ContainsFunc(g.Publish, func(r wire.Route) bool { return r.Power }) ||
		slices.ContainsFunc(g.Consumes, func(s wire.Source) bool { return s.Power })
}

func directGet(stream, subject string) string {
	return "$JS.API.DIRECT.GET." + wire.StreamName(stream) + "." + subject
}
