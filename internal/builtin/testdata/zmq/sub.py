# Prints COUNT messages of the topics that begin with PREFIX.
import sys, zmq
address, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt_string(zmq.SUBSCRIBE, prefix)
socket.connect(address)
print("ready", flush=True)
for _ in range(count):
    topic, body = socket.recv_multipart()
    print(topic.decode(), body.decode(), flush=True)
