"""Third stage: sends each event to the task of its kind, in batches, so that storing never stops the flow."""
import json
import os
import time

import pipe
import tasks

enriched = pipe.pull(os.environ["PEER_ENRICHED"], bind=True)

# A batch goes when it is this large, or this old in seconds: small enough for Redis, large enough for COPY.
BATCH_BYTES, BATCH_AGE = 512 << 10, 0.05

ROUTES = {"PushEvent": "push", "WatchEvent": "watch"}


class Batch:
    def __init__(self, route):
        self.route, self.rows, self.size, self.since = route, [], 0, 0.0

    def add(self, row):
        if not self.rows:
            self.since = time.monotonic()
        self.rows.append(row)
        self.size += len(row[-1])
        if self.size >= BATCH_BYTES:
            self.flush()

    def flush(self):
        if self.rows:
            tasks.store.delay(self.route, self.rows)
            self.rows, self.size = [], 0


batches = {route: Batch(route) for route in ("push", "watch", "other")}

while True:
    if not enriched.poll(int(BATCH_AGE * 1000)):
        for batch in batches.values():
            batch.flush()
        continue
    for line in enriched.recv().splitlines():
        event = json.loads(line)
        kind = event["type"]
        row = (event["id"], kind, event["class"], event["repo"]["name"], event["hour"], line)
        batches[ROUTES.get(kind, "other")].add(row)
    for batch in batches.values():
        if batch.rows and time.monotonic() - batch.since > BATCH_AGE:
            batch.flush()
