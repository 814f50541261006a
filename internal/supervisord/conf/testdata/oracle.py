"""Answers questions about Python and Supervisor, one JSON object a line, so that tests can compare with the real ones."""

import configparser
import io
import json
import os
import shlex
import sys

from supervisor import options, datatypes

# A Python that reads no environment of its own: each request brings one.
FIELDS = [
    "name", "command", "directory", "umask", "priority", "startsecs", "startretries", "stopsignal", "stopwaitsecs",
    "stopasgroup", "killasgroup", "exitcodes", "redirect_stderr", "uid", "serverurl", "autostart", "environment",
]
CHANNEL = ["capture_maxbytes", "events_enabled", "syslog", "logfile_backups", "logfile_maxbytes"]


def program(p):
    out = {k: getattr(p, k) for k in FIELDS}
    out["directory"] = out["directory"] or None
    out["serverurl"] = out["serverurl"] or None
    out["stopsignal"] = int(p.stopsignal)
    restart = p.autorestart
    out["autorestart"] = {
        datatypes.RestartUnconditionally: "always",
        datatypes.RestartWhenExitUnexpected: "unexpected",
        False: "never",
    }[restart]
    for channel in "stdout", "stderr":
        out[channel] = {k: getattr(p, "%s_%s" % (channel, k)) for k in CHANNEL}
        name = getattr(p, channel + "_logfile")
        # An empty value is no log, and no directory worth the name.
        out[channel]["logfile"] = "auto" if name is datatypes.Automatic else name or "none"
    return out


def group(g):
    out = {"name": g.name, "priority": g.priority, "programs": [program(p) for p in g.process_configs]}
    if isinstance(g, options.EventListenerPoolConfig):
        out["buffer_size"] = g.buffer_size
        names = {v: k for k, v in vars(__import__("supervisor.events", fromlist=["x"]).EventTypes).items()}
        out["events"] = sorted(names[e] for e in g.pool_events)
    if isinstance(g, options.FastCGIGroupConfig):
        s = g.socket_config
        out["socket"] = {"url": s.url, "backlog": s.backlog or 0}
        if hasattr(s, "mode"):
            out["socket"].update(mode=s.mode, owner=list(s.owner) if s.owner else [-1, -1])
    return out


def config(request):
    """Reads a file the way supervisord does until it would open its sockets."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(request["environ"])
    said = io.StringIO()
    try:
        o = options.ServerOptions()
        o.stderr = said
        o.exit = stop
        options.platform.node = lambda: request["node"]
        try:
            o.realize(["-c", request["path"]], doc="", progname="supervisord")
        except Stopped:
            text = said.getvalue()
            return {"error": text[len("Error: "):text.rindex("\nFor help")]}
        s = o.configroot.supervisord
        keys = ["minfds", "minprocs", "directory", "user", "umask", "logfile_maxbytes", "logfile_backups", "loglevel",
                "identifier", "nodaemon", "silent", "childlogdir", "nocleanup", "strip_ansi", "environment"]
        daemon = {k: getattr(s, k) for k in keys}
        daemon.update(logfile=o.logfile, pidfile=o.pidfile)
        servers = [{k: v for k, v in c.items() if k not in ("name", "family")} for c in s.server_configs]
        return {
            "supervisord": daemon, "groups": [group(g) for g in s.process_group_configs], "servers": servers,
            # One that each of many processes repeats is said once by us.
            "warnings": list(dict.fromkeys(o.parse_warnings)), "infos": o.parse_infos, "serverurl": o.serverurl,
            "interfaces": [f[0] for f in s.rpcinterface_factories],
        }
    finally:
        os.environ.clear()
        os.environ.update(saved)


class Stopped(Exception):
    pass


def stop(code):
    raise Stopped(code)


def ini(request):
    parser = options.UnhosedConfigParser()
    parser.optionxform = str.lower
    try:
        for text in request["texts"]:
            # newline=None reads line ends as a file opened for text does.
            parser.read_file(io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline=None), "f")
    except configparser.ParsingError as why:
        return {"error": str(why)}
    return {"sections": [[s, [[k, v] for k, v in parser.items(s)]] for s in parser.sections()]}


def guarded(f):
    try:
        return {"value": f()}
    except KeyError as why:
        return {"error": str(why)}
    except Exception as why:
        return {"error": str(why)}


def answer(request):
    ask = request["ask"]
    if ask == "config":
        return config(request)
    if ask == "ini":
        return ini(request)
    if ask == "format":
        return guarded(lambda: request["text"] % request["names"])
    if ask == "split":
        return guarded(lambda: shlex.split(request["text"]))
    if ask == "pairs":
        return guarded(lambda: list(datatypes.dict_of_key_value_pairs(request["text"]).items()))
    if ask == "integer":
        return guarded(lambda: datatypes.integer(request["text"]))
    if ask == "octal":
        return guarded(lambda: datatypes.octal_type(request["text"]))
    if ask == "bytes":
        return guarded(lambda: datatypes.byte_size(request["text"]))
    if ask == "signal":
        return guarded(lambda: int(datatypes.signal_number(request["text"])))
    if ask == "address":
        return guarded(lambda: list(datatypes.inet_address(request["text"])))
    if ask == "repr":
        return guarded(lambda: repr(request["text"]))
    if ask == "match":
        import fnmatch
        return guarded(lambda: fnmatch.fnmatchcase(request["name"], request["text"]))
    raise ValueError(ask)


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
