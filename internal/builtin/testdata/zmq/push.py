# Sends COUNT numbered messages, as the ventilator of the ZeroMQ guide does.
import sys, zmq
address, count = sys.argv[1], int(sys.argv[2])
context = zmq.Context()
socket = context.socket(zmq.PUSH)
socket.connect(address)
for n in range(count):
    socket.send_string('{"n":%d}' % n)
socket.close()
context.term()  # waits until everything is written
print("sent", count)
