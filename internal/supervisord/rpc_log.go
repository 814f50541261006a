//go:build linux

package supervisord

import (
	"io"
	"os"

	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

// maxAnswerBytes bounds what one call returns of a log. Whoever wants more asks for the next piece.
const maxAnswerBytes = 32 << 20

func logMethods() map[string]method {
	piece := []string{"string name", "int offset", "int length"}
	return map[string]method{
		"supervisor.readLog": {
			call: rpc.readLog, min: 2, returns: "string", params: []string{"int offset", "int length"},
			help: "Read the main log: length bytes from offset, to its end for length 0, the last -offset bytes for a negative offset.",
		},
		"supervisor.clearLog": {
			call: rpc.clearLog, returns: "boolean",
			help: "Begin the main log anew.",
		},
		"supervisor.readProcessStdoutLog": {
			call: func(r rpc, a args) result { return r.readProcess(a, "stdout") }, min: 3, returns: "string", params: piece,
			help: "Read the log of a process's standard output, as readLog does.",
		},
		"supervisor.readProcessStderrLog": {
			call: func(r rpc, a args) result { return r.readProcess(a, "stderr") }, min: 3, returns: "string", params: piece,
			help: "Read the log of a process's standard error, as readLog does.",
		},
		"supervisor.tailProcessStdoutLog": {
			call: func(r rpc, a args) result { return r.tailProcess(a, "stdout") }, min: 3, returns: "array", params: piece,
			help: "Read up to length bytes from offset of a log that grows; gives the bytes, the size, and whether some were skipped.",
		},
		"supervisor.tailProcessStderrLog": {
			call: func(r rpc, a args) result { return r.tailProcess(a, "stderr") }, min: 3, returns: "array", params: piece,
			help: "Read up to length bytes from offset of a log that grows; gives the bytes, the size, and whether some were skipped.",
		},
		"supervisor.clearProcessLogs": {
			call: rpc.clearProcessLogs, min: 1, returns: "boolean", params: []string{"string name"},
			help: "Begin the logs of a running process anew.",
		},
		"supervisor.clearAllProcessLogs": {
			call: rpc.clearAllProcessLogs, returns: "array",
			help: "Begin the logs of every running process anew.",
		},
	}
}

func (r rpc) readLog(a args) result {
	if r.d.log.file == nil {
		return fail(noFile, r.d.conf.Supervisord.Logfile)
	}
	return readPiece(r.d.log.file.path, a)
}

func (r rpc) clearLog(args) result {
	if r.d.log.file == nil || !exists(r.d.log.file.path) {
		return fail(noFile, "")
	}
	if err := r.d.log.file.Remove(); err != nil {
		return fail(failed, "")
	}
	return value(true)
}

func (r rpc) readProcess(a args, channel string) result {
	_, p, fault := r.one(a, 0)
	if fault != nil {
		return result{fault: fault}
	}
	path := p.group.logPath(p.conf, channel)
	if path == "" {
		return fail(noFile, "")
	}
	return readPiece(path, a[1:])
}

// readPiece reads a file by an offset and a length.
func readPiece(path string, a args) result {
	offset, ok := a.number(0)
	length, also := a.number(1)
	if !ok || !also {
		return fail(incorrectParameters, "")
	}
	if !exists(path) {
		return fail(noFile, path)
	}
	if offset < 0 && length != 0 || length < 0 {
		return fail(badArguments, "")
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(failed, "")
	}
	defer f.Close()
	if offset < 0 {
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return fail(failed, "")
		}
		offset, length = max(size+offset, 0), -offset
	}
	if length == 0 || length > maxAnswerBytes {
		length = maxAnswerBytes
	}
	data, err := io.ReadAll(io.NewSectionReader(f, offset, length))
	if err != nil {
		return fail(failed, "")
	}
	return value(string(data))
}

func (r rpc) tailProcess(a args, channel string) result {
	_, p, fault := r.one(a, 0)
	if fault != nil {
		return result{fault: fault}
	}
	offset, ok := a.number(1)
	length, also := a.number(2)
	if !ok || !also {
		return fail(incorrectParameters, "")
	}
	path := p.group.logPath(p.conf, channel)
	if path == "" || !exists(path) {
		return value([]any{"", 0, false})
	}
	data, size, overflow, err := tailPiece(path, offset, length)
	if err != nil {
		return value([]any{"", capped(offset), false})
	}
	return value([]any{data, capped(size), overflow})
}

// tailPiece reads the last of a file: length bytes before its end if it has grown beyond offset and length together.
func tailPiece(path string, offset, length int64) (data string, size int64, overflow bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, false, err
	}
	defer f.Close()
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return "", 0, false, err
	}
	if size > offset+length {
		overflow = true
		offset = size - 1
	}
	if offset+length > size {
		if offset > size-1 {
			length = 0
		}
		offset = size - length
	}
	offset, length = max(offset, 0), min(max(length, 0), maxAnswerBytes)
	raw, err := io.ReadAll(io.NewSectionReader(f, offset, length))
	return string(raw), size, overflow, err
}

func (r rpc) clearProcessLogs(a args) result {
	name, p, fault := r.one(a, 0)
	if fault != nil {
		return result{fault: fault}
	}
	if err := p.removeLogs(); err != nil {
		return fail(failed, name)
	}
	return value(true)
}

func (r rpc) clearAllProcessLogs(args) result {
	list := []any{}
	for _, p := range r.everyone() {
		var fault *xmlrpc.Fault
		if err := p.removeLogs(); err != nil {
			fault = newFault(failed, namespec(p.group.conf.Name, p.conf.Name))
		}
		list = append(list, outcome(p, fault))
	}
	return value(list)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
