"""First stage, several of it in parallel: puts the class of each event in front of its other fields."""
import json
import os

import pipe

CLASSES = {
    "PushEvent": "code", "CreateEvent": "code", "DeleteEvent": "code", "ReleaseEvent": "code", "PullRequestEvent": "code",
    "PullRequestReviewCommentEvent": "code", "CommitCommentEvent": "code", "WatchEvent": "interest", "ForkEvent": "interest",
    "IssuesEvent": "talk", "IssueCommentEvent": "talk", "GollumEvent": "talk",
}

raw, classified = pipe.pull(os.environ["PEER_RAW"]), pipe.push(os.environ["PEER_CLASSIFIED"])
prefixes = {name: b'{"class":"%s",' % kind.encode() for name, kind in CLASSES.items()}
admin = b'{"class":"admin",'

while True:
    out = []
    for line in raw.recv().splitlines():
        # The line is read to learn its type, but not written anew: the field goes in front of the text as it came.
        out.append(prefixes.get(json.loads(line)["type"], admin) + line[1:])
    classified.send(b"\n".join(out), copy=False)
