//go:build linux

package supervisord

import "github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"

// faultCode is a code of Supervisor's XML-RPC interface.
type faultCode int

// The codes of faults; success is one because lists of results have it in the same place.
const (
	unknownMethod        faultCode = 1
	incorrectParameters  faultCode = 2
	badArguments         faultCode = 3
	signatureUnsupported faultCode = 4
	shutdownState        faultCode = 6
	badName              faultCode = 10
	badSignal            faultCode = 11
	noFile               faultCode = 20
	notExecutable        faultCode = 21
	failed               faultCode = 30
	abnormalTermination  faultCode = 40
	spawnError           faultCode = 50
	alreadyStarted       faultCode = 60
	notRunning           faultCode = 70
	success              faultCode = 80
	alreadyAdded         faultCode = 90
	stillRunning         faultCode = 91
	cantReread           faultCode = 92
)

var faultNames = map[faultCode]string{
	unknownMethod: "UNKNOWN_METHOD", incorrectParameters: "INCORRECT_PARAMETERS", badArguments: "BAD_ARGUMENTS",
	signatureUnsupported: "SIGNATURE_UNSUPPORTED", shutdownState: "SHUTDOWN_STATE", badName: "BAD_NAME",
	badSignal: "BAD_SIGNAL", noFile: "NO_FILE", notExecutable: "NOT_EXECUTABLE", failed: "FAILED",
	abnormalTermination: "ABNORMAL_TERMINATION", spawnError: "SPAWN_ERROR", alreadyStarted: "ALREADY_STARTED",
	notRunning: "NOT_RUNNING", success: "SUCCESS", alreadyAdded: "ALREADY_ADDED", stillRunning: "STILL_RUNNING",
	cantReread: "CANT_REREAD",
}

// newFault makes the fault of a code, with what it is about unless that is "".
func newFault(code faultCode, about string) *xmlrpc.Fault {
	text := faultNames[code]
	if about != "" {
		text += ": " + about
	}
	return &xmlrpc.Fault{Code: int(code), String: text}
}
