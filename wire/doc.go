// Package wire is the contract between Hozo's processes: environment names, subjects, headers, the frame layout,
// identifiers and versions. Two processes that meet may run different versions of Hozo, so a change here is a protocol
// change: it needs a new version number, a golden test and a line in the changelog. It imports the standard library only.
package wire
