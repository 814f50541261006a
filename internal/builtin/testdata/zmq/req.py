# Asks each question and prints the answer, or its parts when there are several.
import sys, zmq
address, questions = sys.argv[1], sys.argv[2:]
context = zmq.Context()
socket = context.socket(zmq.REQ)
socket.connect(address)
for question in questions:
    socket.send_string(question)
    print("|".join(part.decode() for part in socket.recv_multipart()), flush=True)
