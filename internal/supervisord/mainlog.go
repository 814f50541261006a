//go:build linux

package supervisord

import (
	"fmt"
	"io"
	"log/syslog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// mainlog is the log of the daemon itself, in Supervisor's line format, which its users' tools read. It is safe for
// concurrent use.
type mainlog struct {
	level   conf.Level
	console io.Writer // nil: not there, or silent
	file    *logfile  // nil: none, or syslog
	syslog  *syslog.Writer

	mu sync.Mutex // one line at a time on the console
}

// enabled says whether lines of a level are written.
func (m *mainlog) enabled(l conf.Level) bool { return l >= m.level }

func (m *mainlog) logf(l conf.Level, format string, args ...any) {
	if !m.enabled(l) {
		return
	}
	now := time.Now()
	message := fmt.Sprintf(format, args...)
	line := fmt.Sprintf("%s,%03d %s %s\n", now.Format("2006-01-02 15:04:05"), now.Nanosecond()/1e6, levelTag(l), message)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.console != nil {
		_, _ = io.WriteString(m.console, line) // nobody is left to tell
	}
	if m.file != nil {
		_, _ = m.file.Write([]byte(line)) // counts its own losses
	}
	if m.syslog != nil {
		for one := range strings.SplitSeq(strings.TrimRight(line, "\n"), "\n") {
			_ = m.syslog.Info(one) // syslog is where it would be told
		}
	}
}

func (m *mainlog) critical(format string, args ...any) { m.logf(conf.LevelCritical, format, args...) }
func (m *mainlog) error(format string, args ...any)    { m.logf(conf.LevelError, format, args...) }
func (m *mainlog) warn(format string, args ...any)     { m.logf(conf.LevelWarn, format, args...) }
func (m *mainlog) info(format string, args ...any)     { m.logf(conf.LevelInfo, format, args...) }
func (m *mainlog) debug(format string, args ...any)    { m.logf(conf.LevelDebug, format, args...) }
func (m *mainlog) trace(format string, args ...any)    { m.logf(conf.LevelTrace, format, args...) }

func (m *mainlog) reopen() {
	if m.file == nil {
		return
	}
	if err := m.file.Reopen(); err != nil {
		m.error("log %s not reopened: %v", m.file.path, err)
	}
}

func (m *mainlog) close() {
	if m.file != nil {
		m.file.Close()
	}
	if m.syslog != nil {
		_ = m.syslog.Close() // every line has been sent
	}
}

// openMainlog opens the log of the daemon. written is told of every write.
func openMainlog(s conf.Supervisord, written func(path string)) (*mainlog, error) {
	m := &mainlog{level: s.Loglevel}
	if s.NoDaemon && !s.Silent {
		m.console = os.Stdout
	}
	var err error
	if s.Logfile == "syslog" {
		m.syslog, err = syslog.New(syslog.LOG_INFO|syslog.LOG_USER, "supervisord")
		return m, err
	}
	if m.file, err = openLog(s.Logfile, s.LogfileMaxBytes, s.LogfileBackups); err != nil {
		return nil, err
	}
	m.file.written = written
	return m, nil
}
