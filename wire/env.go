package wire

// Environment variables that the platform sets for every instance of a service. The standard ones
// (LISTEN_FDS, LISTEN_FDNAMES, NOTIFY_SOCKET, PORT) are systemd's and Heroku's and keep their meaning.
const (
	EnvProject   = "HOZO_PROJECT"    // the manifest's project name
	EnvService   = "HOZO_SERVICE"    // the service's name in the manifest
	EnvInstance  = "HOZO_INSTANCE"   // the instance's number within its service, from 1
	EnvBus       = "HOZO_BUS"        // the bus address, nats://127.0.0.1:PORT
	EnvGrant     = "HOZO_GRANT"      // path of the instance's Grant, a 0600 JSON file
	EnvTaskChild = "HOZO_TASK_CHILD" // kind whose tasks this process does for its parent, by pipes; set by package task
	EnvRun       = "HOZO_RUN"        // unique id of this incarnation; marks every process that descends from it
)
