# Sends messages that do not compress until the socket has blocked for two seconds, says so, and then sends the rest.
import os, sys, zmq
address, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = zmq.Context()
socket = context.socket(zmq.PUSH)
socket.setsockopt(zmq.SNDHWM, 10)
socket.setsockopt(zmq.SNDBUF, 16384)
socket.connect(address)
n = 0
while n < count and socket.poll(2000, zmq.POLLOUT):
    socket.send(b"%d " % n + os.urandom(size).hex().encode())
    n += 1
print("blocked", n, flush=True)
for n in range(n, count):
    socket.send(b"%d " % n + os.urandom(size).hex().encode())
socket.close()
context.term()
print("sent", count, flush=True)
