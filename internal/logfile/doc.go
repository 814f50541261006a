// Package logfile is the form of a captured log on disk: who writes one and who reads one meet here.
//
// A log PATH is a set of files:
//
//	PATH            being written; the bytes are those of the process, nothing is added but lines that tell of a gap
//	PATH.1 … .K     rotated, 1 the youngest; each may be PATH.N.zst instead, compressed with zstd
//	PATH.idx, PATH.N.idx   when which byte was captured: see Index
//
// Files end at a line's end, except where a line is longer than the writer waits for its end. Each file has a sequence
// number in its index that only grows, so that a reader finds its place again whatever was renamed, compressed or
// dropped since it last looked.
package logfile
