# Pushes one message with a name and a password, and says whether it was let in within two seconds.
import sys, zmq
from zmq.utils.monitor import recv_monitor_message
address, user, password = sys.argv[1:4]
context = zmq.Context()
socket = context.socket(zmq.PUSH)
if user:
    socket.plain_username, socket.plain_password = user.encode(), password.encode()
monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
                                    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
                                    | zmq.EVENT_DISCONNECTED)
socket.connect(address)
socket.send_string("hello of " + user)
event = recv_monitor_message(monitor)["event"]
let_in = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
print("let in" if let_in else "refused")
socket.close(linger=-1 if let_in else 0)
context.term()
