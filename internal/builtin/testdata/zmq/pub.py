# Publishes COUNT messages for each of two topics, once somebody subscribes.
import sys, zmq
address, count = sys.argv[1], int(sys.argv[2])
context = zmq.Context()
socket = context.socket(zmq.XPUB)  # a PUB that can tell when it is subscribed to
socket.connect(address)
socket.recv()
for n in range(count):
    for topic in ("berlin", "tokyo.north"):
        socket.send_multipart([topic.encode(), b'{"n":%d}' % n])
socket.close()
context.term()
print("sent", 2 * count)
