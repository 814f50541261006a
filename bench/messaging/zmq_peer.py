"""A program of the contender pyzmq in `go run ./bench messaging`; it says and hears what zmq.c does."""

import json
import struct
import sys
import threading
import time

import zmq

END = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
LONG = struct.Struct("<Q")

role = sys.argv[1]
args = dict(arg.split("=", 1) for arg in sys.argv[2:])
size, ms, most = int(args.get("size", 128)), int(args.get("ms", 500)), int(args.get("most", 1 << 26))
context = zmq.Context()


def open_socket(kind):
    s = context.socket(kind)
    s.sndhwm = s.rcvhwm = 1000 if size > 4096 else 100000
    if kind == zmq.XPUB:
        s.setsockopt(zmq.XPUB_NODROP, 1)
        s.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of every subscriber, and not only of the first
    if kind == zmq.SUB:
        s.setsockopt(zmq.SUBSCRIBE, b"")
    return s


def bound(kind, address):
    s = open_socket(kind)
    s.bind(address)
    return s


def connected(kind, address):
    s = open_socket(kind)
    s.connect(address)
    return s


def say(**report):
    print(json.dumps(report), flush=True)


def ready():
    print("ready", flush=True)


def mix(seq):
    return (seq * GOLDEN + size) & END


def source(s):
    middle = b"x" * (size - 16)
    first = time.monotonic_ns()
    until, n, pack, send = first + ms * 1_000_000, 0, LONG.pack, s.send
    while n < most and time.monotonic_ns() < until:
        for seq in range(n, min(n + 64, most)):
            send(pack(seq) + middle + pack(mix(seq)))
        n = min(n + 64, most)
    send(pack(END) + middle + pack(n))
    say(first=first, count=n)


def sink(s):
    seen, total, twice, damaged, want = bytearray(1 << 24), 0, 0, 0, END
    distinct, unpack, recv = 0, LONG.unpack_from, s.recv
    while distinct != want:
        event = recv()
        seq, last = unpack(event, 0)[0], unpack(event, size - 8)[0]
        if seq == END:
            want = last
        elif len(event) != size or last != mix(seq):
            damaged += 1
        elif seen[seq]:
            twice += 1
        else:
            seen[seq] = 1
            distinct += 1
            total += seq
    say(last=time.monotonic_ns(), count=distinct, sum=total & END, twice=twice, damaged=damaged)


def relay(source, target):
    while True:
        target.send(source.recv())


def ask():
    callers = int(args.get("callers", 1))
    took, damaged = [[] for _ in range(callers)], [0] * callers
    first = time.monotonic_ns()
    until = first + ms * 1_000_000

    def call(i):
        s = connected(zmq.REQ, args["out"])
        at, mine = time.monotonic_ns(), took[i]
        while at < until:
            question = LONG.pack(len(mine)) + b"x" * (size - 16) + LONG.pack(mix(len(mine)))
            s.send(question)
            damaged[i] += s.recv() != question
            later = time.monotonic_ns()
            mine.append(later - at)
            at = later

    threads = [threading.Thread(target=call, args=(i,)) for i in range(callers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    last, every = time.monotonic_ns(), sorted(sum(took, []))
    n = len(every)
    say(first=first, last=last, count=n, damaged=sum(damaged), p50=every[n // 2], p99=every[n * 99 // 100])


if role == "push":
    s = connected(zmq.PUSH, args["out"])
    ready()
    sys.stdin.readline()
    source(s)
elif role == "pull":
    s = bound(zmq.PULL, args["in"])
    ready()
    sink(s)
elif role == "relay":
    a, b = bound(zmq.PULL, args["in"]), connected(zmq.PUSH, args["out"])
    ready()
    relay(a, b)
elif role == "pub":
    s = bound(zmq.XPUB, args["out"])
    ready()
    for _ in range(int(args["peers"])):  # each subscription arrives as a message
        s.recv()
    sys.stdin.readline()
    source(s)
elif role == "sub":
    s = connected(zmq.SUB, args["in"])
    ready()
    sink(s)
elif role == "ask":
    ready()
    sys.stdin.readline()
    ask()
elif role == "answer":
    s = bound(zmq.REP, args["in"])
    ready()
    relay(s, s)
else:
    sys.exit("no role " + role)
sys.stdin.read()  # the harness reads this process's times before it lets it end
