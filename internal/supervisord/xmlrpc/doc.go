// Package xmlrpc reads calls and writes answers of XML-RPC: the part of it that Supervisor's clients speak.
//
// A value is a bool, an int, a float64, a string, a time.Time, a []any or a map[string]any. A string may hold anything:
// what XML 1.0 cannot carry (control characters, bytes that are no UTF-8) is left out or replaced when it is written,
// because a client's parser would refuse the whole answer for one such byte.
package xmlrpc
