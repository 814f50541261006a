"""HTTP in: a Tornado server that takes NDJSON bodies and hands each to the classify workers.

It answers once the body is in the ZeroMQ socket. When the workers fall behind, the socket's high-water mark makes the
send wait, and so the client.
"""
import asyncio
import json
import os
import signal

import zmq.asyncio
from tornado import httpserver, web

import pipe


class Events(web.RequestHandler):
    def initialize(self, out):
        self.out = out

    async def post(self):
        body = self.request.body
        await self.out.send(body, copy=False)
        count = body.count(b"\n") + (not body.endswith(b"\n"))
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"accepted": count}))


class Health(web.RequestHandler):
    def get(self):
        self.finish("ok\n")


async def main():
    out = pipe.limited(zmq.asyncio.Context().socket(zmq.PUSH))
    out.bind(os.environ["PEER_RAW"])
    app = web.Application([("/v1/ingest", Events, {"out": out}), ("/healthz", Health)], log_function=lambda _: None)
    server = httpserver.HTTPServer(app, max_buffer_size=256 << 20, max_body_size=16 << 20)
    server.listen(int(os.environ["PEER_PORT"]), "127.0.0.1")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()


asyncio.run(main())
