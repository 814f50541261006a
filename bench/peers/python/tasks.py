"""Slow persistence as Celery tasks: each stores one batch in PostgreSQL with COPY."""
import io
import os

import celery.signals
import psycopg2
import redis

app = celery.Celery("tasks", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_serializer="pickle",  # rows hold bytes; the broker is the team's own
    accept_content=["pickle"],
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=2,
    worker_hijack_root_logger=False,
    broker_pool_limit=4,
)

connections = {}


@celery.signals.worker_process_init.connect
def connect(**_):
    connections["database"] = psycopg2.connect(os.environ["PEER_DATABASE"])
    connections["redis"] = redis.Redis.from_url(os.environ["PEER_REDIS"])


def text(value):
    """The value in COPY's text format."""
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r").encode()


@app.task
def store(route, rows):
    lines = []
    for id, kind, klass, repo, hour, body in rows:
        # JSON text holds no raw tab or newline: only its backslashes need another.
        lines.append(b"\t".join((text(id), text(kind), text(klass), text(repo), text(hour), body.replace(b"\\", b"\\\\"))))
    lines.append(b"")
    database = connections["database"]
    with database, database.cursor() as cursor:
        cursor.copy_expert("COPY events_%s (id, type, class, repo, hour, body) FROM STDIN" % route, io.BytesIO(b"\n".join(lines)))
    # How much is stored, for whoever waits for it; the tables are the truth.
    connections["redis"].incrby("stored", len(rows))
