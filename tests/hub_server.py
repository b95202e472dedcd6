"""A small server on the loopback that speaks the Hub's protocol, records every request, and fails on demand.

It serves the real clients (`huggingface_hub`, `datasets`): accounts, repositories of models and datasets with versioned
commits and tags, uploads by LFS (in one piece or in parts), and downloads with ranges. Everything is in memory.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_" + "OwnerOfTheRepository" * 2
READER = "hf_" + "MayOnlyReadNotWrite0" * 2
STRANGER = "hf_" + "SomebodyElsesAccount" * 2

LARGE = re.compile(r"\.(tar|parquet|safetensors|onnx|png|npz)$")
"""Files that go by LFS, as the Hub's .gitattributes say; others are in the commit itself."""


@dataclass
class Request:
    """What a client asked for and what it got."""

    method: str
    path: str
    headers: dict[str, str]
    received: int = 0
    """Bytes of the body that arrived."""
    status: int | None = None
    """None: the connection was cut instead."""
    sent: int = 0


@dataclass
class Fault:
    """What goes wrong for requests whose `METHOD /path` matches, from the `after`-th on, `times` times."""

    matches: str
    status: int | None = None
    cut: int | None = None
    """Close the connection after so many bytes of the body: of the request for PUT and POST, else of the answer."""
    done: bool = False
    """With `cut`: do what is asked, then close without an answer."""
    page: bool = False
    """Answer with a page for people, as gateways do."""
    headers: dict[str, str] = field(default_factory=dict)
    times: float = 1
    after: int = 0


@dataclass
class Commit:
    """One version of a repository: its files' content and how each is stored."""

    oid: str
    message: str
    files: dict[str, bytes]
    large: set[str]


@dataclass
class Repository:
    """A model or a dataset; the last commit is main."""

    private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        """Return the commit of a branch, tag or hash."""
        wanted = self.tags.get(revision, revision)
        named = [commit for commit in self.commits if commit.oid == wanted]
        return self.commits[-1] if revision == "main" else next(iter(named), None)


class Hub:
    """The state of the server: repositories, stored objects, requests so far, and faults to come."""

    def __init__(self) -> None:
        self.accounts = {TOKEN: ("user", True), READER: ("user", False), STRANGER: ("stranger", True)}
        self.repos: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.before: dict[str, Callable[[], object]] = {}
        """Called before a request is answered whose `METHOD /path` matches."""
        self.part_size: int | None = None
        """LFS objects that are longer go in parts of so many bytes."""
        self.xet: str | None = None
        """Address of the storage that the LFS batch chooses, where the client offers `xet`: `local:///folder` is one
        in files."""
        self.url = ""
        self.waits: list[float] = []
        """Seconds that the client of `connect` waited."""
        self.lock = threading.RLock()

    def fail(self, matches: str, status: int | None = None, **options: Any) -> Fault:
        """Let requests go wrong: see `Fault`."""
        self.faults.append(Fault(matches, status, **options))
        return self.faults[-1]

    def asked(self, matches: str) -> list[Request]:
        """Return the requests whose `METHOD /path` matches."""
        return [each for each in self.requests if re.search(matches, f"{each.method} {each.path}")]

    def repo(self, repo_id: str, kind: str = "dataset") -> Repository:
        """Return a repository."""
        return self.repos[kind, repo_id]

    def files(self, repo_id: str, kind: str = "dataset", revision: str = "main") -> dict[str, bytes]:
        """Return the files of a version, but for the Hub's own .gitattributes."""
        commit = self.repo(repo_id, kind).at(revision)
        assert commit is not None
        return {path: content for path, content in commit.files.items() if path != ".gitattributes"}

    def fault_of(self, request: Request) -> Fault | None:
        """Return what goes wrong for a request, and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.matches, f"{request.method} {request.path}"):
                    fault.after -= 1
                    if fault.after < 0:
                        fault.times -= 1
                        return fault
        return None


def commit_of(parent: Commit | None, message: str, files: dict[str, bytes], large: set[str]) -> Commit:
    """Make a commit; its hash depends on its parent, message and files."""
    tree = "".join(f"{path} {blob_id(content)}\n" for path, content in sorted(files.items()))
    text = f"{parent.oid if parent else ''}\n{message}\n{tree}"
    return Commit(blob_id(text.encode()), message, files, large)


def blob_id(content: bytes) -> str:
    """Return git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class CutError(Exception):
    """The connection is to be closed without (the rest of) an answer."""


ROUTES: list[tuple[str, Callable[..., Any]]] = []


def route(pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function answer `METHOD /path` of a form; `{type}`, `{repo}` and `{rev}` stand for what they say."""
    names = {
        "type": r"(?P<kind>dataset|model)s",
        "repo": r"(?P<repo_id>[\w.-]+/[\w.-]+)",
        "rev": r"(?P<rev>refs/\w+/\w+|[^/]+)",
        "oid": r"(?P<oid>[0-9a-f]{64})",
    }

    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append((pattern.format(**names), answer))
        return answer

    return register


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""

    def answer(self) -> None:
        """Find who answers, let what must fail fail, and send the answer."""
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_record = Request(self.command, unquote(url.path), headers)
        self.hub.requests.append(self.request_record)
        self.fault = self.hub.fault_of(self.request_record)
        try:
            if self.fault and self.fault.cut is not None and not self.fault.done and self.command in ("PUT", "POST"):
                self.request_record.received = len(self.rfile.read(self.fault.cut))
                raise CutError
            self.body = self._body()
            self.request_record.received = len(self.body)
            for pattern, call in self.hub.before.items():
                if re.search(pattern, f"{self.command} {self.request_record.path}"):
                    call()
            if self.fault and self.fault.status is not None:
                raise RefusedError(self.fault.status, "something went wrong on purpose")
            for pattern, answer in ROUTES:
                if found := re.fullmatch(pattern, f"{self.command} {self.request_record.path}"):
                    with self.hub.lock:
                        answered = answer(self, **found.groupdict())
                    return self.send(*answered) if isinstance(answered, tuple) else self.send(answered)
            raise RefusedError(404, f"no such page: {self.path}")
        except RefusedError as refusal:
            code = {"X-Error-Code": refusal.code} if refusal.code else {}
            error = {"X-Error-Message": str(refusal), **code, **(self.fault.headers if self.fault else {})}
            page = self.fault is not None and self.fault.page
            self.send(b"<html>Bad gateway</html>" if page else {"error": str(refusal)}, refusal.status, error)
        except (CutError, BrokenPipeError, ConnectionResetError):
            self._hang_up()

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send bytes as they are, all else as JSON."""
        if self.fault and self.fault.done:
            raise CutError
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            cut = self.fault.cut if self.fault else None
            self.wfile.write(body[:cut])
            self.request_record.sent = len(body[:cut])
            if cut is not None:
                raise CutError
        self.request_record.status = status

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        if self.command in ("PUT", "POST"):  # reset: the client may still be sending
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def user(self) -> tuple[str, bool] | None:
        """Return who asks and whether he may write; None without a token."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.hub.accounts:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return self.hub.accounts[given] if given else None

    def readable(self, kind: str, repo_id: str) -> Repository:
        """Return a repository that the user may read."""
        repo, user = self.hub.repos.get((kind, repo_id)), self.user()
        if repo is None or (repo.private and (user is None or user[0] != repo_id.split("/")[0])):
            raise RefusedError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def writable(self, kind: str, repo_id: str) -> Repository:
        """Return a repository that the user may write."""
        repo = self.readable(kind, repo_id)
        self.may_write(repo_id)
        return repo

    def may_write(self, repo_id: str) -> None:
        """Refuse who may not write in a namespace."""
        user = self.user()
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if user != (repo_id.split("/")[0], True):
            raise RefusedError(403, f"You don't have the rights to write to {repo_id}")

    def version(self, kind: str, repo_id: str, rev: str) -> Commit:
        """Return a version that the user may read."""
        commit = self.readable(kind, repo_id).at(unquote(rev))
        if commit is None:
            raise RefusedError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return commit

    def json(self) -> Any:
        """Return the request's body."""
        return json.loads(self.body)


@route(r"GET /api/whoami-v2")
def whoami(asked: Handler) -> Any:
    """Say whose token it is."""
    user = asked.user()
    if user is None:
        raise RefusedError(401, "Invalid username or password.")
    role = "write" if user[1] else "read"
    return {"type": "user", "name": user[0], "orgs": [], "auth": {"accessToken": {"role": role}}}


@route(r"POST /api/repos/create")
def create(asked: Handler) -> Any:
    """Make a repository."""
    told = asked.json()
    kind, repo_id = told.get("type") or "model", f"{told['organization']}/{told['name']}"
    asked.may_write(repo_id)
    url = f"{asked.hub.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    if (kind, repo_id) in asked.hub.repos:
        return {"url": url, "error": "You already created this repo"}, 409
    first = commit_of(None, "initial commit", {".gitattributes": b"*.tar filter=lfs\n"}, set())
    asked.hub.repos[kind, repo_id] = Repository(told.get("visibility") == "private", [first])
    return {"url": url, "name": repo_id}


@route(r"POST /api/validate-yaml")
def validate_yaml(asked: Handler) -> Any:
    """Check a card's header, roughly."""
    if not asked.json()["content"].startswith("---\n"):
        return {"warnings": [{"message": "empty or missing yaml metadata in repo card"}], "errors": []}
    return {"warnings": [], "errors": []}


@route(r"POST /api/{type}/{repo}/preupload/{rev}")
def preupload(asked: Handler, kind: str, repo_id: str, rev: str) -> Any:
    """Say how each file is to be sent."""
    asked.writable(kind, repo_id)
    head = asked.version(kind, repo_id, rev)
    files = []
    for file in asked.json()["files"]:
        path = file["path"]
        mode = "lfs" if LARGE.search(path) or file["size"] > 10_000_000 else "regular"
        entry = _entry(head, path) if path in head.files else {}
        oid = entry["lfs"]["oid"] if "lfs" in entry else entry.get("oid")
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": files}


@route(r"POST /(?:(?P<kind>dataset)s/)?{repo}\.git/info/lfs/objects/batch")
def lfs_batch(asked: Handler, kind: str | None, repo_id: str) -> Any:
    """Say where to put each object that is not there yet."""
    asked.writable(kind or "model", repo_id)
    told, hub, objects = asked.json(), asked.hub, []
    for each in told["objects"]:
        oid, size = each["oid"], each["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in hub.objects:
            upload: dict[str, Any] = {"href": f"{hub.url}/lfs/{oid}?X-Amz-Signature=0123456789abcdef"}
            if hub.part_size and size > hub.part_size:
                parts = range(1, -(-size // hub.part_size) + 1)
                upload = {"href": f"{hub.url}/lfs/{oid}/complete", "header": {"chunk_size": str(hub.part_size)}}
                upload["header"] |= {f"{part:05d}": f"{hub.url}/lfs/{oid}/part/{part}" for part in parts}
            answer["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/lfs/{oid}/verify"}}
        objects.append(answer)
    chosen = "xet" if hub.xet and "xet" in told["transfers"] else "basic"
    return {"transfer": chosen, "objects": objects}


@route(r"GET /api/{type}/{repo}/xet-(?:read|write)-token/{rev}")
def xet_token(asked: Handler, kind: str, repo_id: str, rev: str) -> Any:
    """Say where the Xet storage is."""
    asked.readable(kind, repo_id)
    if asked.hub.xet is None:
        raise RefusedError(404, "no Xet here")
    told = {"casUrl": asked.hub.xet, "exp": 4_000_000_000, "accessToken": "xet"}
    headers = {"X-Xet-Cas-Url": told["casUrl"], "X-Xet-Token-Expiration": str(told["exp"]), "X-Xet-Access-Token": "xet"}
    return told, 200, headers


@route(r"PUT /lfs/{oid}")
def lfs_put(asked: Handler, oid: str) -> Any:
    """Store an object; the address is signed, so no token is asked for."""
    if hashlib.sha256(asked.body).hexdigest() != oid:
        raise RefusedError(400, "the content is not what its name says")
    asked.hub.objects[oid] = asked.body
    return b""


@route(r"PUT /lfs/{oid}/part/(?P<number>\d+)")
def lfs_part(asked: Handler, oid: str, number: str) -> Any:
    """Store a part of an object."""
    asked.hub.objects[f"{oid}/{number}"] = asked.body
    return b"", 200, {"ETag": f'"{hashlib.sha256(asked.body).hexdigest()}"'}


@route(r"POST /lfs/{oid}/complete")
def lfs_complete(asked: Handler, oid: str) -> Any:
    """Put an object together."""
    names = [f"{oid}/{part['partNumber']}" for part in asked.json()["parts"]]
    content = b"".join(asked.hub.objects[name] for name in names)
    if hashlib.sha256(content).hexdigest() != oid:
        raise RefusedError(400, "the parts are not what the name says")
    for name in names:
        del asked.hub.objects[name]
    asked.hub.objects[oid] = content
    return {}


@route(r"POST /lfs/{oid}/verify")
def lfs_verify(asked: Handler, oid: str) -> Any:
    """Say whether an object is whole."""
    if len(asked.hub.objects.get(oid, b"")) != asked.json()["size"]:
        raise RefusedError(404, "no such object")
    return {}


@route(r"POST /api/{type}/{repo}/commit/{rev}")
def commit(asked: Handler, kind: str, repo_id: str, rev: str) -> Any:
    """Make a commit, if every object that it names is there."""
    repo = asked.writable(kind, repo_id)
    head = asked.version(kind, repo_id, rev)
    files, large, header = dict(head.files), set(head.large), {}
    for line in asked.body.splitlines():
        item = json.loads(line)
        told = item["value"]
        if item["key"] == "header":
            header = told
            if told.get("parentCommit", head.oid) != head.oid:
                raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        elif item["key"] == "file":
            files[told["path"]] = base64.b64decode(told["content"])
            large.discard(told["path"])
        elif item["key"] == "lfsFile":
            if asked.hub.xet:  # its storage, where the content is, is another server's
                asked.hub.objects.setdefault(told["oid"], b"by xet")
            if told["oid"] not in asked.hub.objects:
                raise RefusedError(400, f"LFS pointer pointed to a file that does not exist: {told['path']}")
            files[told["path"]] = asked.hub.objects[told["oid"]]
            large.add(told["path"])
        else:
            files.pop(told["path"])
            large.discard(told["path"])
    repo.commits.append(commit_of(head, header["summary"], files, large))
    oid = repo.commits[-1].oid
    return {"success": True, "commitOid": oid, "commitUrl": f"{asked.hub.url}/{kind}s/{repo_id}/commit/{oid}"}


@route(r"GET /api/{type}/{repo}(?:/revision/{rev})?")
def repo_info(asked: Handler, kind: str, repo_id: str, rev: str | None) -> Any:
    """Describe a version."""
    repo, version = asked.readable(kind, repo_id), asked.version(kind, repo_id, rev or "main")
    return {
        "id": repo_id,
        "sha": version.oid,
        "private": repo.private,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": path} for path in sorted(version.files)],
        "lastModified": "2026-01-01T00:00:00.000Z",
    }


def _entry(version: Commit, path: str) -> dict[str, Any]:
    content = version.files[path]
    entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    if path in version.large:
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return entry


def _entries(version: Commit, folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
    seen = set()
    for path in sorted(version.files):
        if folder and not path.startswith(f"{folder}/"):
            continue
        inner = path[len(folder) + 1 if folder else 0 :].split("/")
        for depth in range(1, len(inner)):
            parent = "/".join([*filter(None, [folder]), *inner[:depth]])
            if parent not in seen and (recursive or depth == 1):
                seen.add(parent)
                yield {"type": "directory", "path": parent, "oid": blob_id(parent.encode()), "size": 0}
        if recursive or len(inner) == 1:
            yield _entry(version, path)


@route(r"GET /api/{type}/{repo}/tree/{rev}(?:/(?P<folder>.+))?")
def tree(asked: Handler, kind: str, repo_id: str, rev: str, folder: str | None) -> Any:
    """List a folder of a version."""
    version = asked.version(kind, repo_id, rev)
    entries = list(_entries(version, folder or "", asked.query.get("recursive", "").lower() == "true"))
    if folder and not entries:
        raise RefusedError(404, f"{folder} does not exist", "EntryNotFound")
    return entries


@route(r"POST /api/{type}/{repo}/paths-info/{rev}")
def paths_info(asked: Handler, kind: str, repo_id: str, rev: str) -> Any:
    """Describe some files and folders of a version."""
    version = asked.version(kind, repo_id, rev)
    told = asked.json() if asked.headers["Content-Type"] == "application/json" else parse_qs(asked.body.decode())
    return [each for each in _entries(version, "", recursive=True) if each["path"] in told["paths"]]


@route(r"GET /api/{type}/{repo}/refs")
def refs(asked: Handler, kind: str, repo_id: str) -> Any:
    """List branches and tags."""
    repo = asked.readable(kind, repo_id)
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repo.tags.items()]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].oid}
    return {"branches": [main], "tags": tags, "converts": []}


@route(r"POST /api/{type}/{repo}/tag/{rev}")
def tag(asked: Handler, kind: str, repo_id: str, rev: str) -> Any:
    """Name a version."""
    repo, name = asked.writable(kind, repo_id), asked.json()["tag"]
    if name in repo.tags:
        raise RefusedError(409, f"Tag {name} already exists")
    repo.tags[name] = asked.version(kind, repo_id, rev).oid
    return {}


@route(r"(?:GET|HEAD) /(?:(?P<kind>dataset)s/)?{repo}/resolve/{rev}/(?P<path>.+)")
def resolve(asked: Handler, kind: str | None, repo_id: str, rev: str, path: str) -> Any:
    """Send a file, or a range of it."""
    version = asked.version(kind or "model", repo_id, rev)
    if path not in version.files:
        raise RefusedError(404, "Entry not found", "EntryNotFound")
    entry, content = _entry(version, path), version.files[path]
    etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
    headers = {"X-Repo-Commit": version.oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content)), "Content-Type": "binary/octet-stream"}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range", ""))
    if wanted is None:
        return content, 200, headers
    start, end = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
    return content[start : end + 1], 206, headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a server on a free port of the loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def connect(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path, token: str | None = TOKEN) -> list[float]:
    """Let the Hub's client in this process talk to a server, with caches in `home`.

    Returns:
        the seconds that the client waits before each new try, from then on: it does not sleep them.
    """
    from huggingface_hub import constants

    for name, value in {
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


if __name__ == "__main__":  # for a look by hand: python tests/hub_server.py
    with serve() as running:
        print(f"HF_ENDPOINT={running.url} HF_TOKEN={TOKEN} HF_HUB_OFFLINE=0", flush=True)
        threading.Event().wait()
