"""A test double of the W&B server, in memory, on loopback, for real clients: runs, resuming, files, sync, sweeps, Api.

GraphQL operations are told apart by their names and answered with more fields than asked for, which clients ignore.
`python wandb_server.py PORT` prints its address; GET /_state tells what it holds.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
ENTITY = "test"
KEY = "0123456789" * 4


class Server:
    """The double as a process that a test can kill and start again at the same address (it then knows nothing)."""

    def __init__(self, log: Path) -> None:
        self.log, self.port = log, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http"), self.log.read_text()
        self.port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def state(self) -> Json:
        """`runs` and `sweeps` by id, `files` (RUN/NAME), `alerts`, `unknown` operations."""
        with urllib.request.urlopen(f"{self.url}/_state", timeout=10) as answer:
            found: Json = json.load(answer)
        return found

    def environment(self) -> dict[str, str]:
        """Variables with which a W&B client finds this server and has a key."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, **QUIET}


QUIET = {"WANDB_ERROR_REPORTING": "false"}
"""For every client in a test: nothing leaves this machine."""


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def gid(*parts: str) -> str:
    return base64.b64encode(":".join(parts).encode()).decode()


def plain(config: Json) -> Json:
    """A run's config without the {"value": ...} around each entry."""
    return {
        name: item["value"] if isinstance(item, dict) and "value" in item else item for name, item in config.items()
    }


class Store:
    """What the server holds."""

    def __init__(self) -> None:
        self.host = ""
        self.runs: dict[str, Json] = {}
        self.sweeps: dict[str, Json] = {}
        self.waiting: dict[str, Iterator[Json]] = {}  # what a sweep has still to try
        self.agents: dict[str, Json] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.alerts: list[Json] = []
        self.unknown: list[Any] = []
        self.lock = threading.RLock()

    def project(self, name: str) -> Json:
        entity = {"id": "e1", "name": ENTITY, "__typename": "Entity"}
        return {
            "__typename": "Project", "id": gid("Project", name), "internalId": gid("Number", name), "name": name,
            "entityName": ENTITY, "entity": entity, "createdAt": now(), "isBenchmark": False, "readOnly": False,
        }  # fmt: skip

    def run(self, run: Json) -> Json:
        """A run as GraphQL gives it."""
        rows = run["history"]
        keys = {
            name: {"typeCounts": [{"type": "number", "count": 1}], "previousValue": 0} for row in rows for name in row
        }
        return {
            "__typename": "Run", "id": gid("Run", run["name"]), "internalId": "1", "projectId": "1",
            "name": run["name"], "displayName": run["displayName"], "state": run["state"],
            "config": json.dumps(run["config"]), "group": run.get("group"),
            "jobType": run.get("jobType"), "tags": run.get("tags") or [],
            "sweepName": run.get("sweep"), "commit": None, "readOnly": False, "createdAt": run["created"],
            "heartbeatAt": now(), "updatedAt": now(), "description": "", "notes": run.get("notes") or "",
            "summaryMetrics": json.dumps(run["summary"]), "systemMetrics": "{}", "historyLineCount": len(rows),
            "historyKeys": {"keys": keys, "lastStep": rows[-1].get("_step", 0) if rows else -1}, "logLineCount": 0,
            "eventsLineCount": 0, "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]), "eventsTail": "[]",
            "stopped": False, "shouldStop": False, "user": {"id": "u1", "name": ENTITY, "username": ENTITY},
            "wandbConfig": json.dumps({"t": 1}), "project": self.project(run["project"]), "fileCount": 0,
            "files": {"edges": self.file_edges(run["name"]), "pageInfo": NO_MORE, "uploadHeaders": []},
        }  # fmt: skip

    def file_edges(self, run: str) -> list[Json]:
        found = []
        for (owner, name), content in self.files.items():
            url = f"http://{self.host}/storage/{run}/{name}"
            node = {"id": name, "name": name, "url": url, "directUrl": url, "sizeBytes": len(content), "md5": ""}
            found += [{"node": {**node, "uploadUrl": "", "mimetype": "", "updatedAt": now()}}] if owner == run else []
        return found

    def sweep(self, sweep: Json) -> Json:
        """A sweep as GraphQL gives it."""
        runs = [self.run(run) for run in self.runs.values() if run.get("sweep") == sweep["name"]]
        edges = [{"node": run, "cursor": str(i)} for i, run in enumerate(runs)]
        return {
            "__typename": "Sweep", "id": sweep["id"], "name": sweep["name"], "displayName": sweep["name"],
            "config": sweep["yaml"], "state": sweep["state"], "method": sweep["config"].get("method"), "bestLoss": None,
            "createdAt": now(), "heartbeatAt": now(), "updatedAt": now(), "description": None, "controller": None,
            "scheduler": None, "runCount": len(runs), "runCountExpected": None,
            "user": {"id": "u1", "name": ENTITY, "username": ENTITY}, "project": self.project(sweep["project"]),
            "runs": {"edges": edges, "pageInfo": NO_MORE}, "priorRuns": {"edges": []},
            "agents": {"edges": [{"node": agent} for agent in self.agents.values()]},
        }  # fmt: skip


NO_MORE = {"endCursor": None, "hasNextPage": False}
INFO = {
    "__typename": "ServerInfo", "features": [], "capabilities": [],
    "cliVersionInfo": {"max_cli_version": "99.0.0", "min_cli_version": "0.0.1"},
    "latestLocalVersionInfo": {
        "outOfDate": False, "latestVersionString": "0.99.0", "versionOnThisInstanceString": "0.99.0"
    },
}  # fmt: skip
VIEWER = {
    "__typename": "User", "id": "u1", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "email": "a@b.c",
    "admin": False, "flags": "{}", "teams": {"edges": [{"node": {"id": "e1", "name": ENTITY}}]},
    "apiKeys": {"edges": []}, "defaultEntity": {"id": "e1", "name": ENTITY},
}  # fmt: skip
STORE = Store()


def matches(wanted: Json, run: Json) -> bool:
    """The filters of `Api.runs`, as far as they are used here: equality, and $and, $or, $in."""
    seen = {**run, "config": plain(run["config"]), "display_name": run["displayName"]}
    for key, value in wanted.items():
        if key in ("$and", "$or"):
            if not (all if key == "$and" else any)(matches(part, run) for part in value):
                return False
            continue
        found: Any = seen
        for part in key.removesuffix(".value").split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found not in value["$in"] if isinstance(value, dict) else found != value:
            return False
    return True


def trials(config: Json) -> Iterator[Json]:
    """What a sweep tries: the grid in order, else random draws."""
    fixed = {name: spec["value"] for name, spec in config["parameters"].items() if "value" in spec}
    free = {name: spec["values"] for name, spec in config["parameters"].items() if "values" in spec}
    if config["method"] == "grid":
        for values in itertools.product(*free.values()):
            yield {**fixed, **dict(zip(free, values, strict=True))}
        return
    source = random.Random(0)
    while True:
        yield {**fixed, **{name: source.choice(values) for name, values in free.items()}}


def upsert_run(given: Json) -> Json:
    name = given.get("name") or fresh_id()
    inserted = name not in STORE.runs
    fresh = {"name": name, "project": given.get("project") or "uncategorized", "displayName": name, "created": now()}
    run = STORE.runs.setdefault(name, {**fresh, "config": {}, "summary": {}, "history": [], "state": "running"})
    for key, own in (
        ("groupName", "group"),
        *((key, key) for key in ("displayName", "jobType", "tags", "sweep", "state")),
    ):
        run |= {own: given[key]} if given.get(key) is not None else {}
    run["config"] = json.loads(given["config"]) if given.get("config") else run["config"]
    run["summary"].update(json.loads(given.get("summaryMetrics") or "{}"))
    return {"upsertBucket": {"bucket": STORE.run(run), "inserted": inserted}}


def fresh_id() -> str:
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=8))


def upsert_sweep(given: Json) -> Json:
    name = next((key for key, sweep in STORE.sweeps.items() if given.get("id") in (key, sweep["id"])), None)
    if name is None:
        name, config = fresh_id(), yaml.safe_load(given["config"])
        own = {"id": gid("Sweep", name), "name": name, "config": config, "yaml": given["config"]}
        STORE.sweeps[name] = {**own, "project": given.get("projectName"), "state": "PENDING"}
        STORE.waiting[name] = trials(config)
    STORE.sweeps[name]["state"] = given.get("state") or STORE.sweeps[name]["state"]
    return {"upsertSweep": {"sweep": STORE.sweep(STORE.sweeps[name]), "configValidationWarnings": []}}


def create_agent(given: Json) -> Json:
    name = f"agent{len(STORE.agents)}"
    sweep = next(key for key, sweep in STORE.sweeps.items() if given.get("sweep") in (key, sweep["id"]))
    STORE.agents[name] = {"id": name, "name": name, "sweep": sweep, "host": given.get("host"), "state": "RUNNING"}
    return {"createAgent": {"agent": {"id": name}}}


def heartbeat(given: Json) -> Json:
    """The next trial when an agent has none running; `exit` when all were tried."""
    sweep = STORE.sweeps[STORE.agents[given["id"]]["sweep"]]
    running = [state for state in json.loads(given.get("runState") or "{}").values() if state in (True, "running")]
    commands: list[Json] = []
    if sweep["state"] in ("CANCELED", "STOPPED", "FINISHED"):
        commands = [{"type": "exit"}]
    elif not running:
        trial = next(STORE.waiting[sweep["name"]], None)
        sweep["state"] = "FINISHED" if trial is None else "RUNNING"
        commands = [{"type": "exit"}]
        if trial is not None:
            name, arguments = fresh_id(), {key: {"value": value} for key, value in trial.items()}
            program = sweep["config"].get("program")
            commands = [
                {"type": "run", "run_id": name, "run_name": name, "program": program, "args": arguments, "logs": []}
            ]
    agent = {"id": given["id"], "name": given["id"], "state": "RUNNING"}
    return {"agentHeartbeat": {"agent": agent, "commands": json.dumps(commands)}}


def create_files(given: Json) -> Json:
    base = f"http://{STORE.host}/storage/{given.get('run')}"
    files = [{"name": name, "uploadUrl": f"{base}/{name}"} for name in given["files"]]
    return {"createRunFiles": {"runID": gid("Run", str(given.get("run"))), "uploadHeaders": [], "files": files}}


def alert(given: Json) -> Json:
    STORE.alerts.append(given)
    return {"notifyScriptableRunAlert": {"success": True}}


def list_runs(given: Json, project: str) -> Json:
    wanted = json.loads(given.get("filters") or "{}")
    found = [run for run in STORE.runs.values() if run["project"] == project and matches(wanted, run)]
    if (given.get("order") or "").startswith("-"):
        found.reverse()
    first = int(given.get("cursor") or 0)
    page = found[first : first + (given.get("perPage") or 50)]
    edges = [{"node": STORE.run(run), "cursor": str(first + i + 1)} for i, run in enumerate(page)]
    more = {"endCursor": str(first + len(page)), "hasNextPage": first + len(page) < len(found)}
    runs = {"edges": edges, "pageInfo": more, "totalCount": len(found)}
    return {"project": {**STORE.project(project), "runCount": len(found), "runs": runs}}


def one_run(run: Json, given: Json) -> Json:
    """A run with its history, as pages of steps or all of it."""
    low, high = given.get("minStep") or 0, given.get("maxStep") if given.get("maxStep") is not None else 10**18
    rows = [row for row in run["history"] if low <= row.get("_step", 0) < high]
    rows = rows[: given.get("pageSize") or given.get("samples") or len(rows)]
    specs = given.get("specs") or [given.get("spec") or "{}"]
    specs = [json.loads(spec) if isinstance(spec, str) else spec for spec in specs]
    wanted = [spec.get("keys") or [] for spec in specs]
    sampled = [[{k: row.get(k) for k in keys or row} for row in rows if all(k in row for k in keys)] for keys in wanted]
    history = {"history": [json.dumps(row) for row in rows], "events": [], "sampledHistory": sampled}
    found = {**STORE.run(run), **history, "parquetHistory": {"liveData": rows, "parquetUrls": []}}
    return {"project": {**STORE.project(run["project"]), "run": found, "bucket": found}, "model": {"bucket": found}}


HANDLERS = {
    "UpsertBucket": upsert_run, "UpsertSweep": upsert_sweep, "CreateAgent": create_agent, "Heartbeat": heartbeat,
    "AgentHeartbeat": heartbeat, "CreateRunFiles": create_files,
    "NotifyScriptableRunAlert": alert,
}  # fmt: skip


def answer(operation: str, given: Json, query: str) -> Json:
    """The data of one GraphQL operation."""
    project = given.get("project") or given.get("projectName") or given.get("name") or "uncategorized"
    if operation in ("Viewer", "ProbeServerCapabilities") or re.match(r"[^{]*\{\s*viewer\b", query):
        return {"viewer": VIEWER, "serverInfo": INFO}
    if "serverInfo" in query:
        return {"serverInfo": INFO, "QueryType": None, "MutationType": None}
    if operation in HANDLERS:
        return HANDLERS[operation](given)
    sweep = given.get("sweep") or given.get("sweepName")
    if "sweep" in query and (sweep or operation in ("Sweep", "SweepWithRuns", "GetSweep", "GetSweepState")):
        known = STORE.sweeps.get(sweep or given.get("name", ""))
        name = given.get("project") or given.get("projectName") or ""
        return {"project": {**STORE.project(name), "sweep": STORE.sweep(known) if known else None}}
    if operation in ("Runs", "ProjectRuns", "GetRuns", "LightweightRuns"):
        return list_runs(given, project)
    for key in ("runName", "run", "name"):
        if given.get(key) in STORE.runs:
            return one_run(STORE.runs[given[key]], given)
    STORE.unknown.append((operation, given))
    entity = {"id": "e1", "name": ENTITY, "organization": None, "project": None}
    nothing = {"run": None, "bucket": None, "sweep": None}
    return {"project": {**STORE.project(project), **nothing}, "model": {"bucket": None}, "entity": entity}


def stream(run: Json, files: Json) -> None:
    """Lines of history, summary: each chunk says at which line it begins, so that what comes twice is there once."""
    for name, chunk in (files.get("files") or {}).items():
        lines = [json.loads(line) for line in chunk.get("content", []) if name.startswith("wandb-")]
        if name == "wandb-history.jsonl":
            first = chunk.get("offset", 0)
            run["history"][first : first + len(lines)] = lines
        elif name == "wandb-summary.json" and lines:
            run["summary"] = lines[-1]
    if files.get("preempting"):
        run["preempting"] = True
    if files.get("complete"):
        run["state"] = "finished" if files.get("exitcode") == 0 else "failed"


class Handler(BaseHTTPRequestHandler):
    """HTTP: /graphql, file streams, uploads to and downloads from /storage."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def handle_one_request(self) -> None:
        """A client that was killed is no news."""
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def send(self, content: Any, code: int = 200) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_POST(self) -> None:
        body = json.loads(self.body() or b"{}")
        with STORE.lock:
            streamed = re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
            if streamed:
                stream(STORE.runs[streamed[1]], body)
                return self.send({"exitcode": None, "limits": {}})
            if not self.path.startswith("/graphql"):
                return self.send({}, 404)
            if self.headers.get("Authorization") != "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode():
                return self.send({"errors": [{"message": "invalid key"}]}, 401)
            named = re.search(r"\b(?:query|mutation)\s+(\w+)", body["query"])
            self.send({"data": answer(named[1] if named else "", body.get("variables") or {}, body["query"])})

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        STORE.files[run, name] = self.body()
        self.send({})

    def do_GET(self) -> None:
        if self.path == "/_state":
            names = [f"{run}/{name}" for run, name in STORE.files]
            runs = {name: {**run, "config": plain(run["config"])} for name, run in STORE.runs.items()}
            more = {"alerts": STORE.alerts, "unknown": STORE.unknown}
            return self.send({"runs": runs, "sweeps": STORE.sweeps, "files": names, **more})
        _, _, run, name = (*self.path.split("/", 3), "", "")[:4]
        found = STORE.files.get((run, name))
        return self.send({}, 404) if found is None else self.send(found)


def serve(port: int) -> None:
    """Serve until killed."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    STORE.host = f"127.0.0.1:{server.server_port}"
    print(f"http://{STORE.host}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    os.umask(0o077)
    serve(int(sys.argv[1]))
