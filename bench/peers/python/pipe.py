"""The ZeroMQ sockets between the programs. A message is a batch of events as NDJSON, about 256 KiB to 1 MiB."""
import zmq

# Messages are large, so few of them fill the pipe: 32 of up to 1 MiB on each side.
HIGH_WATER = 32


def limited(socket):
    socket.set_hwm(HIGH_WATER)
    socket.setsockopt(zmq.LINGER, 0)
    return socket


def pull(endpoint, bind=False):
    socket = limited(zmq.Context.instance().socket(zmq.PULL))
    socket.bind(endpoint) if bind else socket.connect(endpoint)
    return socket


def push(endpoint, bind=False):
    socket = limited(zmq.Context.instance().socket(zmq.PUSH))
    socket.bind(endpoint) if bind else socket.connect(endpoint)
    return socket
