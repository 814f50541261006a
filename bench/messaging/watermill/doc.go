// Package watermill is an adapter of package bus to Watermill's interfaces, made to run Watermill's universal suite of
// tests (pubsub/tests) on it. It lives in a module of its own, for the tests alone: nobody links it.
//
// A message is an event of the typed topic wm.TOPIC in the stream wm; a consumer group is a service. What Watermill
// expects of a subscriber is what a Stage with one worker does: the next event comes when the one before is done with.
package watermill
