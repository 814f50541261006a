# Counts the words of a text: a worker in Python's standard library, on the socket that it inherits.
# The status code is the outcome of the task, the body of a 200 its result.
import http.server, json, socket


class Worker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        args = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not isinstance(args.get("text"), str):
            self.answer(422, {"error": "there is no text"})  # a dead letter: trying again is useless
            return
        print("task", self.headers["Hozo-Task"], "attempt", self.headers["Hozo-Attempt"], flush=True)
        self.answer(200, {"words": len(args["text"].split())})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Worker, bind_and_activate=False)
server.socket = socket.socket(fileno=3)  # LISTEN_FDS
server.serve_forever()
