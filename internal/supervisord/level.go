//go:build linux

package supervisord

import "github.com/hozo-dev/hozo/internal/supervisord/conf"

// levelTag is the level in a line of the main log.
func levelTag(l conf.Level) string {
	switch l {
	case conf.LevelCritical:
		return "CRIT"
	case conf.LevelError:
		return "ERRO"
	case conf.LevelWarn:
		return "WARN"
	case conf.LevelInfo:
		return "INFO"
	case conf.LevelDebug:
		return "DEBG"
	case conf.LevelTrace:
		return "TRAC"
	default:
		return "BLAT"
	}
}
