package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Streams and subjects of the task queue. A queue's stream holds what is to be done, and nothing of it is kept once it is
// done; hozo.record holds what is known of a task. Decision 0018 has the whole contract.
const (
	TaskStream    = "hozo.tasks"      // hozo.tasks.<queue>.{q.<kind>.<priority>.<id>,s.<kind>.<id>,w.<kind>.<priority>.<key>.<id>,f.<kind>.<count>.<frame>,c.<cron>,o.<service>}
	RecordStream  = "hozo.record"     // hozo.record.{r.<kind>.<id>,u.<kind>.<hash>,w.<kind>.<id>,s.<kind>.<id:step>,f.<flow>,h.<kind>.<frame>,c.<kind>.<frame>}
	TaskNote      = "hozo.tasknote"   // core subject of notes to whoever runs a task: hozo.tasknote.<kind>
	TaskWait      = "hozo.taskwait"   // core subject of tasks that begin to wait in a limited queue: hozo.taskwait.<queue>.<kind>.<priority>.<key>.<id>
	TaskPace      = "hozo.taskpace"   // core subject of workers' words on tasks that were let out: hozo.taskpace.<queue>
	MetaPaced     = "hozo-paced"      // of a queue's stream and consumers: its tasks wait until they are let out
	TaskChange    = "hozo.taskchange" // core subject of changes of records: hozo.taskchange.<kind>.<id>
	MaxTaskID     = 256               // bytes of an id, before it is escaped
	TaskPriority1 = 1                 // the highest
	TaskPriority3 = 3                 // the lowest
)

// Headers of tasks and of their records. Each may be missing.
const (
	HeaderCopy    = "Hozo-Copy"    // number of this copy of the task, from 1; a retry, a snooze and a replay make a further one
	HeaderState   = "Hozo-State"   // of a record; on a task only "cancelled"
	HeaderStrikes = "Hozo-Strikes" // how often in a row a task was started and no end was told
	HeaderExpires = "Hozo-Expires" // RFC 3339: the task is not to be started later
	HeaderUnique  = "Hozo-Unique"  // hash under which the task holds its lock
	HeaderKey     = "Hozo-Key"     // key of the task, for limits
	HeaderApart   = "Hozo-Apart"   // sequence and index of the task in a frame that was taken apart: its record is to be read first
	HeaderOwner   = "Hozo-Owner"   // instance that claimed the task last

	HeaderFlow      = "Hozo-Flow"       // id of the workflow that the task belongs to
	HeaderFlowError = "Hozo-Flow-Error" // why the task cannot be given what those before it have made
)

// TaskQueue is a queue and its kinds, as a grant names it.
type TaskQueue struct {
	Name  string   `json:"name"`
	Kinds []string `json:"kinds"`
	Max   int64    `json:"max,omitempty"` // most tasks in it; 0 is the default
}

// QueueStream is the manifest's way of naming the stream of a queue.
func QueueStream(queue string) string { return TaskStream + "." + queue }

// QueueSubjects is everything that the stream of a queue stores.
func QueueSubjects(queue string) string { return TaskStream + "." + StreamName(queue) + ".>" }

// TaskSubject is where the task id of kind waits to be run. id may be "*".
func TaskSubject(queue, kind string, priority int, id string) string {
	return fmt.Sprintf("%s.%s.q.%s.%d.%s", TaskStream, StreamName(queue), StreamName(kind), priority, id)
}

// ScheduleSubject is where the task id waits for its time.
func ScheduleSubject(queue, kind, id string) string {
	return TaskStream + "." + StreamName(queue) + ".s." + StreamName(kind) + "." + id
}

// WaitSubject is where the task id waits in a limited queue until it is let out, by a token of its key.
func WaitSubject(queue, kind string, priority int, key, id string) string {
	return fmt.Sprintf("%s.%s.w.%s.%d.%s.%s", TaskStream, StreamName(queue), StreamName(kind), priority, key, id)
}

// WaitPrefix begins the subjects of everything that waits in a limited queue.
func WaitPrefix(queue string) string { return TaskStream + "." + StreamName(queue) + ".w." }

// WaitingSubject is where it is said that a task has begun to wait: hozo.taskwait.<queue>.<kind>.<priority>.<key>.<id>.
func WaitingSubject(queue string) string { return TaskWait + "." + StreamName(queue) }

// PaceSubject is where workers say that they have begun a task that was let out, and that it has left.
func PaceSubject(queue string) string { return TaskPace + "." + StreamName(queue) }

// KeyToken writes the key of a task as one token of a subject. Long keys become a digest.
func KeyToken(key string) string {
	if key == "" {
		return NoKeyToken
	}
	token := TaskToken(key)
	if len(token) > maxKeyToken {
		sum := sha256.Sum256([]byte(key))
		return "%01" + hex.EncodeToString(sum[:16])
	}
	return token
}

// NoKeyToken is the token of tasks without a key. No key has it: keys hold no control characters.
const NoKeyToken = "%00"

// maxKeyToken is long enough for names and ids and short beside the rest of a task.
const maxKeyToken = 96

// CronSubject holds what has come of a cron whose tasks are in the queue.
func CronSubject(queue, cron string) string {
	return TaskStream + "." + StreamName(queue) + ".c." + cron
}

// OutboxSubject holds which rows of a service's outbox are in the queue.
func OutboxSubject(queue, service string) string {
	return TaskStream + "." + StreamName(queue) + ".o." + service
}

// FrameSubject is where count tasks of kind wait in one message, the frame id. count and id may be "*".
func FrameSubject(queue, kind, count, id string) string {
	return TaskStream + "." + StreamName(queue) + ".f." + StreamName(kind) + "." + count + "." + id
}

// QueueFrames are the subjects of all frames of a queue.
func QueueFrames(queue string) string { return TaskStream + "." + StreamName(queue) + ".f.>" }

// FramedID names task i of a frame.
func FramedID(frame string, i int) string { return frame + "-" + strconv.Itoa(i) }

// SplitFramedID reads what FramedID wrote. Others' ids may look like it.
func SplitFramedID(id string) (frame string, i int, ok bool) {
	at := strings.LastIndexByte(id, '-')
	if at < 1 {
		return "", 0, false
	}
	i, err := strconv.Atoi(id[at+1:])
	return id[:at], i, err == nil && i >= 0 && FramedID(id[:at], i) == id
}

// FramedTasks counts the frames of kind and their tasks from the messages by subject of a queue's stream; "*" is any kind.
func FramedTasks(subjects map[string]uint64, kind string) (frames, tasks uint64) {
	for subject, n := range subjects {
		parts := strings.Split(subject, ".")
		if len(parts) != 7 || parts[3] != "f" || (kind != "*" && parts[4] != StreamName(kind)) {
			continue
		}
		count, err := strconv.ParseUint(parts[5], 10, 32)
		if err == nil {
			frames, tasks = frames+n, tasks+n*count
		}
	}
	return frames, tasks
}

// RecordSubject holds what is known of the task id.
func RecordSubject(kind, id string) string {
	return RecordStream + ".r." + StreamName(kind) + "." + id
}

// FrameRecordSubject holds who takes a frame apart, or has claimed it anew.
func FrameRecordSubject(kind, frame string) string {
	return RecordStream + ".h." + StreamName(kind) + "." + frame
}

// FrameMarkSubject holds something when a task of the frame was cancelled.
func FrameMarkSubject(kind, frame string) string {
	return RecordStream + ".c." + StreamName(kind) + "." + frame
}

// UniqueSubject holds the id of the task that has the uniqueness of hash.
func UniqueSubject(kind, hash string) string {
	return RecordStream + ".u." + StreamName(kind) + "." + hash
}

// NodeSubject holds what a workflow has in store for the task id: when it begins, and what follows it.
func NodeSubject(kind, id string) string {
	return RecordStream + ".w." + StreamName(kind) + "." + id
}

// StepSubject holds what a finished step of the task id has made. id is the token of "ID:STEP".
func StepSubject(kind, id string) string {
	return RecordStream + ".s." + StreamName(kind) + "." + id
}

// FlowSubject holds what is known of a whole workflow.
func FlowSubject(id string) string { return RecordStream + ".f." + id }

// NoteSubject is where those who run tasks of kind hear of cancellations.
func NoteSubject(kind string) string { return TaskNote + "." + StreamName(kind) }

// ChangeSubject is where it is said that the record of the task id has changed.
func ChangeSubject(kind, id string) string { return TaskChange + "." + StreamName(kind) + "." + id }

// TaskDurable is the consumer that hands out the tasks of kind with a priority.
func TaskDurable(kind string, priority int) string {
	return fmt.Sprintf("%s@%d", StreamName(kind), priority)
}

// FrameDurable is the consumer that hands out the frames of kind.
func FrameDurable(kind string) string { return StreamName(kind) + "@f" }

// TaskDurables are all consumers of kind.
func TaskDurables(kind string) []string {
	var all []string
	for p := TaskPriority1; p <= TaskPriority3; p++ {
		all = append(all, TaskDurable(kind, p))
	}
	return append(all, FrameDurable(kind))
}

// TaskToken writes an id as one token of a subject: every byte that a token cannot hold, and %, becomes %XX. Ids that need
// none of that are returned as they are.
func TaskToken(id string) string {
	if plainToken(id) {
		return id
	}
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; tokenEscapes(c) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func tokenEscapes(c byte) bool {
	return c <= ' ' || c >= 0x7f || c == '%' || c == '.' || c == '*' || c == '>'
}

// plainToken reports whether an id is written as it is.
func plainToken(id string) bool {
	for i := range len(id) {
		if tokenEscapes(id[i]) {
			return false
		}
	}
	return true
}

// ParseTaskToken reads what TaskToken wrote and nothing else, so that one id has one token.
func ParseTaskToken(token string) (string, error) {
	switch {
	case token != "" && plainToken(token):
		return token, nil
	case !strings.Contains(token, "%"):
		return "", fmt.Errorf("%q is no token of a task's id", token)
	}
	id := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		if token[i] != '%' {
			id = append(id, token[i])
			continue
		}
		if i+2 >= len(token) {
			return "", fmt.Errorf("%q is no token of a task's id: it ends in the middle", token)
		}
		high, low := upperHex(token[i+1]), upperHex(token[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("%q is no token of a task's id: %s is no byte", token, token[i:i+3])
		}
		id = append(id, byte(high<<4|low))
		i += 2
	}
	if TaskToken(string(id)) != token {
		return "", fmt.Errorf("%q is no token of a task's id: it would be written %q", token, TaskToken(string(id)))
	}
	return string(id), nil
}

func upperHex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
