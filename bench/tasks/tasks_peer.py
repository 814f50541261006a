"""The Python programs of `go run ./bench tasks`: Celery and RQ on Redis. What they say is told in peer/main.go.

    tasks_peer.py celery|rq produce|work name=value...

Handlers run in processes of the queue's own, as it starts them by default, and append a line a task to a file of their
own; the worker's program reads those files.
"""
import glob
import json
import os
import subprocess
import sys
import time

URL = os.environ["PEER_URL"]
DIR = os.environ.get("PEER_DIR", ".")
BUSY = int(os.environ.get("PEER_US", "0")) / 1e6
ADDRESS = "somebody@example.com"
_out = None


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def handle(n, at, to):
    """Does one task."""
    global _out
    if BUSY:
        time.sleep(BUSY)
    if _out is None or _out[0] != os.getpid():
        _out = (os.getpid(), os.open(f"{DIR}/{os.getpid()}.done", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
    os.write(_out[1], b"%d %d %d %d\n" % (n, at, now(), to == ADDRESS))


try:
    from celery import Celery

    app = Celery("tasks_peer", broker=URL)
    app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=64, broker_pool_limit=2)
    celery_handle = app.task(handle, name="handle")
except ImportError:
    app = None


def enqueuer(name):
    if name == "celery":
        return lambda n, at: celery_handle.delay(n, at, ADDRESS)
    import redis
    import rq

    queue = rq.Queue(connection=redis.Redis.from_url(URL))
    return lambda n, at: queue.enqueue("tasks_peer.handle", n, at, ADDRESS, result_ttl=0)


def produce(name, n, rate):
    enqueue = enqueuer(name)
    print("ready", flush=True)
    sys.stdin.readline()
    first = now()
    for i in range(n):
        at = now()
        if rate:
            at = first + i * 1_000_000_000 // rate
            time.sleep(max(0, at - now()) / 1e9)
        enqueue(i, at)
    print(json.dumps({"First": first, "Last": now(), "Count": n}), flush=True)


def argv(name):
    if name == "celery":
        return ["/usr/bin/python3", "-m", "celery", "-A", "tasks_peer", "worker", "-c", "2", "--loglevel", "ERROR",
                "--without-gossip", "--without-mingle", "--without-heartbeat"]
    return ["/usr/bin/rq", "worker", "--quiet", "--url", URL]


def work(name, n):
    here = os.path.dirname(os.path.abspath(__file__))
    env = dict(os.environ, PYTHONPATH=here)
    workers = [subprocess.Popen(argv(name), env=env, stdout=sys.stderr) for _ in range(1 if name == "celery" else 2)]
    wait_for_workers(name, len(workers))
    print("ready", flush=True)
    places, took, twice, damaged = {}, {}, 0, 0
    first, last, late = 0, 0, None
    while late is None or time.monotonic() < late:
        time.sleep(0.02)
        for path in glob.glob(f"{DIR}/*.done"):
            with open(path, "rb") as f:
                f.seek(places.get(path, 0))
                data = f.read()
            end = data.rfind(b"\n") + 1
            places[path] = places.get(path, 0) + end
            for line in data[:end].splitlines():
                number, at, came, good = map(int, line.split())
                if not good or not 0 <= number < n:
                    damaged += 1
                elif number in took:
                    twice += 1
                else:
                    took[number] = came - at
                    first, last = min(first or came, came), max(last, came)
        if late is None and len(took) == n:
            late = time.monotonic() + 0.15
    every = sorted(took.values())
    print(json.dumps({"First": first, "Last": last, "Count": len(took), "Sum": sum(took), "Twice": twice, "Damaged": damaged,
                      "P50": every[len(every) // 2], "P99": every[len(every) * 99 // 100]}), flush=True)
    sys.stdin.read()
    for w in workers:
        w.terminate()
    for w in workers:
        w.wait()
    for path in glob.glob(f"{DIR}/*.done"):
        os.remove(path)


def wait_for_workers(name, count):
    if name == "celery":
        while not app.control.ping(timeout=0.5):
            pass
        return
    import redis
    import rq

    connection = redis.Redis.from_url(URL)
    while rq.Worker.count(connection=connection) < count:
        time.sleep(0.05)


if __name__ == "__main__":
    settings = dict(arg.split("=", 1) for arg in sys.argv[3:])
    if sys.argv[2] == "produce":
        produce(sys.argv[1], int(settings["n"]), int(settings.get("rate", 0)))
        sys.stdin.read()
    else:
        work(sys.argv[1], int(settings["n"]))
