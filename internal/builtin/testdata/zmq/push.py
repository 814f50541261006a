# Sends COUNT numbered messages, as the ventilator of the ZeroMQ guide does.
import sys, zmq
address, count = sys.argv[1], int(sys.argv[2])
socket = zmq.Context().socket(zmq.PUSH)
socket.connect(address)
for n in range(count):
    socket.send_string('{"n":%d}' % n)
socket.close()
zmq.Context.instance().term()
print("sent", count)
