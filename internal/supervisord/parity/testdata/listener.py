"""An event listener: appends what it is told to a file, and answers as its second argument says."""

import os
import sys
import time

record, answer = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "ok"


def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def write(text):
    with open(record, "a") as f:
        f.write("%.3f %s\n" % (time.time(), text))


count = 0
if answer == "silent":
    write("up")
    sys.stdin.read()
    sys.exit(0)
if answer == "babble":
    say("HELLO\n")
while True:
    say("READY\n")
    line = sys.stdin.readline()
    if not line:
        break
    headers = dict(pair.split(":", 1) for pair in line.split())
    body = sys.stdin.read(int(headers["len"]))
    count += 1
    write("%s pool:%s ver:%s server:%s %s" % (headers["eventname"], headers["pool"], headers["ver"], headers["server"], repr(body)))
    if answer == "fail-once" and count == 1:
        say("RESULT 4\nFAIL")
    elif answer == "die-once" and not os.path.exists(record + ".died"):
        open(record + ".died", "w").close()
        sys.exit(1)
    elif answer == "garbage" and count == 2:
        say("NONSENSE 2\nOK")
    elif answer == "odd" and count == 1:
        say("RESULT 3\nODD")
    elif answer == "slow" and count == 1:
        while not os.path.exists(record + ".go"):
            time.sleep(0.02)
        say("RESULT 2\nOK")
    else:
        say("RESULT 2\nOK")
