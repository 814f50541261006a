# Prints what it is given until it has been given COUNT messages.
import sys, zmq
address, count = sys.argv[1], int(sys.argv[2])
socket = zmq.Context().socket(zmq.PULL)
socket.connect(address)
print("ready", flush=True)
for _ in range(count):
    print(socket.recv_string(), flush=True)
