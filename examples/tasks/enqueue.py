# Enqueues a task and waits for its result, in Python's standard library.
import json, sys, urllib.request

door = "http://" + sys.argv[1]


def enqueue(kind, args, key, query=""):
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}  # sent again, it is the same task
    request = urllib.request.Request(door + "/v1/tasks/" + kind + query, json.dumps(args).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return answer.headers["Location"]


def wait(task):
    while True:
        with urllib.request.urlopen(door + task + "?wait=30s") as answer:
            status = json.load(answer)
        if status["state"] in ("done", "dead", "cancelled", "expired"):
            return status


status = wait(enqueue("words.count", {"text": "small pieces that interlock"}, "example-1", "?priority=high"))
print(status["state"], status.get("result"))
status = wait(enqueue("words.count", {"words": 4}, "example-2"))
print(status["state"], status.get("error"))
