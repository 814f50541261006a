# An HTTP endpoint on the socket that it inherits: it prints each event that is pushed to it.
import http.server, socket


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.headers["Hozo-Event"], body.decode(), flush=True)
        self.send_response(204)
        self.end_headers()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint, bind_and_activate=False)
server.socket = socket.socket(fileno=3)  # LISTEN_FDS
server.serve_forever()
