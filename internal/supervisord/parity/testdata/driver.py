"""Drives daemons with Supervisor's own client code: each connection sends a JSON request a line and gets an answer a line."""

import io
import json
import os
import signal
import socket
import sys
import xmlrpc.client

from supervisor import supervisorctl, xmlrpc as supervisor_xmlrpc

real_stdout = sys.stdout


def ctl(args):
    said = io.StringIO()
    sys.stdout = sys.stderr = said
    try:
        supervisorctl.main(args)
        code = 0
    except SystemExit as why:
        code = why.code
    except Exception as why:
        said.write("%s: %s" % (type(why).__name__, why))
        code = -1
    finally:
        sys.stdout, sys.stderr = real_stdout, sys.__stderr__
    return {"output": said.getvalue(), "code": code}


def rpc(url, method, params, username=None, password=None):
    transport = supervisor_xmlrpc.SupervisorTransport(username, password, url)
    proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
    try:
        target = proxy
        for part in method.split("."):
            target = getattr(target, part)
        return {"result": plain(target(*params))}
    except xmlrpc.client.Fault as why:
        return {"fault": [why.faultCode, why.faultString]}
    except xmlrpc.client.ProtocolError as why:
        return {"protocol": [why.errcode, why.errmsg]}
    except Exception as why:
        return {"error": "%s: %s" % (type(why).__name__, why)}
    finally:
        transport.close()


def plain(v):
    if isinstance(v, xmlrpc.client.Binary):
        return v.data.decode("latin-1")
    if isinstance(v, (list, tuple)):
        return [plain(x) for x in v]
    if isinstance(v, dict):
        return {k: plain(x) for k, x in v.items()}
    return v


def raw(path, text, wait):
    """Sends text over the socket as it is and reads until the server closes, or until the text wait has come."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(path)
    got = b""
    try:
        if text:
            s.sendall(text.encode("latin-1"))
        while not wait or wait.encode("latin-1") not in got:
            part = s.recv(65536)
            if not part:
                break
            got += part
    except OSError as why:
        got += ("[%s]" % type(why).__name__).encode()
    finally:
        s.close()
    return {"output": got.decode("latin-1")}


def serve(conn):
    lines, out = conn.makefile("r"), conn.makefile("w")
    for line in lines:
        q = json.loads(line)
        if q["ask"] == "ctl":
            a = ctl(q["args"])
        elif q["ask"] == "rpc":
            a = rpc(q["url"], q["method"], q["params"], q.get("username"), q.get("password"))
        else:
            a = raw(q["path"], q["text"], q["wait"])
        print(json.dumps(a), file=out, flush=True)


# One process imports Supervisor and each conversation gets a copy of it: importing takes longer than most scenarios.
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(64)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
while True:
    conn, _ = server.accept()
    if os.fork() == 0:
        server.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        serve(conn)
        os._exit(0)
    conn.close()
