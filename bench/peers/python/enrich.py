"""Second stage: puts the hour of each event and the number of its commits in front of its other fields."""
import json
import os

import pipe

classified = pipe.pull(os.environ["PEER_CLASSIFIED"], bind=True)
enriched = pipe.push(os.environ["PEER_ENRICHED"])

while True:
    out = []
    for line in classified.recv().splitlines():
        event = json.loads(line)
        hour, commits = event["created_at"][:13].encode(), event["payload"].get("size", 0)
        out.append(b'{"hour":"%s","commits":%d,' % (hour, commits) + line[1:])
    enriched.send(b"\n".join(out), copy=False)
