// Package conf reads supervisord.conf the way Supervisor does.
//
// [Load] turns a file and the files it includes into a [Config]: parsed in the dialect of Python's RawConfigParser,
// expanded by Python's % rules, checked by Supervisor's data types, with every default filled in and every numprocs
// spelled out into one [Program] a process. A Config is plain data that nothing changes afterwards.
//
// What is wrong is said twice over: [Message] gives Supervisor's own words for the first mistake, which its users and
// their tools know; the error itself joins every mistake with its place, its fix and its code. What is right but cannot
// be honoured is a [Warning].
package conf
