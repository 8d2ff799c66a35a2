"""A small Hub on 127.0.0.1 that the real clients talk to through HF_ENDPOINT: for tests, and to try without an account.

Speaks what huggingface_hub 2.4 needs to publish and load models and data sets by commits and LFS; everything is kept
in memory. There is no Xet, so clients need HF_HUB_DISABLE_XET=1.

    with HubServer() as hub:
        hub.fail(r"POST .*/commit/", 503, count=2)
        ...  # a process with HF_ENDPOINT=hub.url and HF_TOKEN=hub_server.WRITE
"""

import asyncio
import base64
import hashlib
import json
import re
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from tests.hub_server import judge

WRITE, READ = "hf_alice_may_write", "hf_alice_may_read"
FINE = "hf_alice_may_write_for_acme"
ACCOUNTS: dict[str, tuple[Any, ...]] = {
    WRITE: ("alice", "write"),
    READ: ("alice", "read"),
    FINE: ("alice", "fineGrained", ("acme", "alice/one")),
    "hf_bob_may_write": ("bob", "write"),
}
ORGANIZATIONS = {"acme": {"alice"}}
LFS = re.compile(r"\.(safetensors|bin|pt|png|parquet|gz)$")
NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]{0,95}(?<![.-])")
REF = re.compile(r"(?!.*(\.\.|//|@\{|/\.|\.lock(/|$)))(?![/.-])[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")


@dataclass(frozen=True)
class File:
    """A file of a commit. Of one in LFS git holds a pointer, and the content is known by its SHA-256."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob(self) -> str:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        stored = pointer.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def facts(self, path: str) -> dict[str, Any]:
        facts = {"type": "file", "path": path, "size": len(self.content), "oid": self.blob}
        return facts | (
            {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}} if self.lfs else {}
        )


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    files: dict[str, File]
    title: str
    message: str
    author: str
    date: str


@dataclass
class Repo:
    id: str
    kind: str
    private: bool
    gated: bool = False  # everybody may see its facts, and only its owner its files
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # refs/heads/..., refs/tags/..., refs/pr/... -> commit
    discussions: list[dict[str, Any]] = field(default_factory=list)

    def commit(self, ref: str, files: dict[str, File], title: str, message: str, author: str) -> Commit:
        new = Commit(secrets.token_hex(20), self.refs.get(ref), files, title, message, author, _now())
        self.commits[new.id] = new
        self.refs[ref] = new.id
        return new

    def ref(self, revision: str) -> str | None:
        """Full name of a branch, tag or pull request."""
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def at(self, revision: str) -> Commit:
        ref = self.ref(revision)
        if ref is None and revision not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[self.refs[ref] if ref else revision]

    def history(self, revision: str) -> list[Commit]:
        found, commit = [], self.at(revision)
        while commit:
            found.append(commit)
            commit = self.commits.get(commit.parent or "")
        return found


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path?query" matches `route`.

    Attributes:
        what: a status, "drop" (the connection ends without an answer), "slow" (the answer comes after `seconds`) or
            "other" (the answer has as many bytes as the right one, and others).
        html: the body is a page, as a gateway between client and Hub answers, and not the Hub's JSON.
        body: of the answer, instead of the Hub's JSON.
        after: the request is carried out first, and its answer is lost.
        count: how often; `skip`: how many matching requests are left alone before.
    """

    route: str
    what: int | str
    after: bool = False
    count: int = 1
    skip: int = 0
    retry_after: str | None = None
    seconds: float = 0.0
    html: bool = False
    body: bytes | None = None


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **body: Any):
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer = JSONResponse({"error": message, **body}, status, headers)


class HubServer:
    """Tests may read what there is.

    Attributes:
        repos: (kind, id) -> Repo.
        objects: SHA-256 -> content of LFS.
        collections: slug -> collection.
        log: requests.
    """

    def __init__(self, port: int = 0, page: int = 1000):
        self.page = page
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each answer waits 40 ms for its body
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._answer, interface="asgi3", log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def wait(self) -> None:
        """Until the process is interrupted."""
        self._thread.join()

    def fail(self, route: str, what: int | str, **settings: Any) -> None:
        self.faults.append(Fault(route, what, **settings))

    def model(self, id: str) -> Repo:
        return self.repos["model", id]

    async def _answer(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode()  # revisions hold quoted slashes
        query = scope["query_string"].decode()
        line = f"{request.method} {path}{'?' if query else ''}{query}"
        self.log.append(line)
        fault = self._fault(line)
        if fault and fault.what == "slow":
            await asyncio.sleep(fault.seconds)
        elif fault and fault.what == "drop" and not fault.after:
            await receive()  # a first piece of the body, and no more
            return await _drop(send)
        elif fault and fault.what != "other" and not fault.after:
            return await _failure(fault)(scope, receive, send)
        body = await request.body()
        answer = self._handle(request, path, body)
        if fault and fault.what == "other":
            answer.body = bytes(answer.body)[::-1]
            return await answer(scope, receive, send)
        if fault and fault.after:
            if fault.what == "drop":
                return await _drop(send)
            answer = _failure(fault)
        await answer(scope, receive, send)

    def _fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.count and re.search(fault.route, line):
                if fault.skip:
                    fault.skip -= 1
                else:
                    fault.count -= 1
                    return fault
        return None

    def _handle(self, request: Request, path: str, body: bytes) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme and token not in ACCOUNTS:
                raise Refused(401, "Invalid credentials in Authorization header")
            who = Caller(*ACCOUNTS[token]) if scheme else Caller(None, "read")
            for method, pattern, handler in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and method == request.method.replace("HEAD", "GET"):
                    parts = {name: urllib.parse.unquote(value or "") for name, value in found.groupdict().items()}
                    return handler(self, Call(request, body, who, parts))
            raise Refused(404, f"nothing at {request.method} {path}")
        except Refused as refusal:
            return refusal.answer


@dataclass(frozen=True)
class Caller:
    name: str | None
    role: str
    scopes: tuple[str, ...] = ()
    """Namespaces and repositories that a fine-grained token may write to."""

    def may_write(self, owner: str, id: str) -> bool:
        allowed = self.role == "write" or bool({owner, id} & {*self.scopes})
        return allowed and owner in self.places

    @property
    def places(self) -> set[str]:
        return {self.name or ""} | {name for name, members in ORGANIZATIONS.items() if self.name in members}


@dataclass(frozen=True)
class Call:
    request: Request
    body: bytes
    who: Caller
    parts: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    @property
    def query(self) -> Any:
        return self.request.query_params

    @property
    def kind(self) -> str:
        return self.parts.get("kinds", "").strip("/").removesuffix("s") or "model"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


async def _drop(send: Callable) -> None:
    """Promise ten bytes and end: the server then closes the connection, and the client has no whole answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})


def _failure(fault: Fault) -> Response:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    if fault.body is not None:
        return Response(fault.body, int(fault.what), headers)
    if fault.html:
        return HTMLResponse("<html><title>injected</title></html>", int(fault.what), headers)
    return JSONResponse({"error": "injected"}, int(fault.what), headers)


def _repo(hub: HubServer, call: Call, write: bool = False) -> Repo:
    repo = hub.repos.get((call.kind, call.parts["id"]))
    owner = call.parts["id"].split("/")[0]
    if repo is None or (repo.private and owner not in call.who.places):
        raise Refused(404 if call.who.name else 401, "Repository not found", "RepoNotFound")
    if write and not call.who.may_write(owner, call.parts["id"]):
        raise Refused(403, "You do not have the rights to write to this repository")
    return repo


# --- accounts and repositories


def whoami(hub: HubServer, call: Call) -> Response:
    if call.who.name is None:
        raise Refused(401, "Invalid username or password.")
    orgs = [{"name": name, "roleInOrg": "write"} for name in sorted(call.who.places - {call.who.name})]
    token: dict[str, Any] = {"displayName": "test", "role": call.who.role}
    if call.who.role == "fineGrained":
        may = ["repo.content.read", "repo.write"]
        kinds = {name: "model" if "/" in name else "org" for name in call.who.scopes}
        scoped = [{"entity": {"type": kind, "name": name}, "permissions": may} for name, kind in kinds.items()]
        token["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": scoped}
    auth = {"accessToken": token}
    return JSONResponse({"type": "user", "name": call.who.name, "fullname": "", "orgs": orgs, "auth": auth})


def create(hub: HubServer, call: Call) -> Response:
    owner, name = call.json.get("organization") or call.who.name, call.json["name"]
    if call.who.name is None:
        raise Refused(401, "Invalid username or password.")
    if not call.who.may_write(owner, f"{owner}/{name}"):
        raise Refused(403, f"You don't have the rights to create a model under the namespace {owner!r}")
    if not NAME.fullmatch(name):
        raise Refused(400, f"Invalid repository name {name!r}")
    kind, id = call.json.get("type") or "model", f"{owner}/{name}"
    if kind == "space" and call.json.get("sdk") not in judge.SDKS:
        raise Refused(400, f'"sdk" must be one of {", ".join(judge.SDKS)}')
    url = f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{id}"
    if (kind, id) in hub.repos:
        raise Refused(409, "You already created this repo", url=url)
    hub.repos[kind, id] = repo = Repo(id, kind, call.json.get("visibility") == "private")
    attributes = File(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    repo.commit("refs/heads/main", {".gitattributes": attributes}, "initial commit", "", owner)
    return JSONResponse({"url": url})


def delete(hub: HubServer, call: Call) -> Response:
    kind, owner = call.json.get("type") or "model", call.json.get("organization") or call.who.name
    call.parts.update(id=f"{owner}/{call.json['name']}", kinds=f"{kind}s")
    _repo(hub, call, write=True)
    del hub.repos[kind, call.parts["id"]]
    return JSONResponse({})


def settings(hub: HubServer, call: Call) -> Response:
    _repo(hub, call, write=True).private = call.json.get("visibility") == "private"
    return JSONResponse({})


def auth_check(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call, write=bool(call.parts["write"]))
    if repo.gated and repo.id.split("/")[0] not in call.who.places:
        raise Refused(403, f"Access to model {repo.id} is restricted", "GatedRepo")
    return JSONResponse({})


def _card(commit: Commit) -> dict[str, Any]:
    with suppress(yaml.YAMLError):
        return judge.head_of(commit.files.get("README.md", File(b"")).content.decode(errors="replace"))
    return {}


def _facts(repo: Repo, revision: str = "main") -> dict[str, Any]:
    commit = repo.at(revision)
    card = _card(commit)
    tags = [*card.get("tags", []), *([f"license:{card['license']}"] if "license" in card else [])]
    if base := card.get("base_model"):
        tags += [f"base_model:{base}", f"base_model:{card.get('base_model_relation', 'finetune')}:{base}"]
    tags += [f"dataset:{name}" for name in card.get("datasets", [])]
    tags += [card[key] for key in ("library_name", "pipeline_tag") if key in card]
    return {
        "id": repo.id,
        "sha": commit.id,
        "private": repo.private,
        "gated": repo.gated and "manual",
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "cardData": card,
        "createdAt": repo.history("main")[-1].date,
        "lastModified": commit.date,
        "siblings": [{"rfilename": path, "size": len(file.content)} for path, file in commit.files.items()],
        **{key: card[key] for key in ("library_name", "pipeline_tag") if key in card},
    }


def info(hub: HubServer, call: Call) -> Response:
    return JSONResponse(_facts(_repo(hub, call), call.parts.get("rev") or "main"))


def listing(hub: HubServer, call: Call) -> Response:
    found = []
    for (kind, id), repo in sorted(hub.repos.items(), reverse=True):
        facts = _facts(repo)
        if (
            kind == call.kind
            and (not repo.private or id.split("/")[0] in call.who.places)
            and call.query.get("author", id.split("/")[0]) == id.split("/")[0]
            and call.query.get("search", "").lower() in id.lower()
            and call.query.get("pipeline_tag") in (None, facts.get("pipeline_tag"))
            and set(call.query.getlist("filter")) <= set(facts["tags"])
        ):
            found.append(facts)
    if "sort" in call.query:
        found.sort(key=lambda facts: facts[call.query["sort"]], reverse=True)
    return _paged(hub, call, found, int(call.query.get("limit", hub.page)))


def _paged(hub: HubServer, call: Call, items: list[Any], size: int) -> Response:
    first = int(call.query.get("cursor", 0))
    headers = {}
    if first + size < len(items):
        following = call.request.url.include_query_params(cursor=first + size)
        headers["Link"] = f'<{hub.url}{call.request.scope["raw_path"].decode()}?{following.query}>; rel="next"'
    return JSONResponse(items[first : first + size], headers=headers)


# --- reading


def tree(hub: HubServer, call: Call) -> Response:
    files = _repo(hub, call).at(call.parts["rev"]).files
    below = call.parts["path"].strip("/")
    inside = {path: file for path, file in files.items() if not below or path.startswith(below + "/")}
    if below and not inside:
        raise Refused(404, f"{below} does not exist", "EntryNotFound")
    items: dict[str, dict[str, Any]] = {}
    for path, file in sorted(inside.items()):
        steps = path.removeprefix(below).strip("/").split("/")
        for depth in range(1, len(steps)):
            folder = "/".join([*([below] if below else []), *steps[:depth]])
            if depth == 1 or call.query.get("recursive") == "true":
                items[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        if len(steps) == 1 or call.query.get("recursive") == "true":
            items[path] = file.facts(path)
    return _paged(hub, call, list(items.values()), hub.page)


def paths_info(hub: HubServer, call: Call) -> Response:
    files = _repo(hub, call).at(call.parts["rev"]).files
    asked = urllib.parse.parse_qs(call.body.decode()).get("paths", [])
    return JSONResponse([files[path].facts(path) for path in asked if path in files])


def refs(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call)

    def those(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit}
            for ref, commit in repo.refs.items()
            if ref.startswith(prefix)
        ]

    found = {"branches": those("refs/heads/"), "tags": those("refs/tags/"), "converts": []}
    return JSONResponse(found | ({"pullRequests": those("refs/pr/")} if "include_prs" in call.query else {}))


def commits(hub: HubServer, call: Call) -> Response:
    keys = ("id", "title", "message", "date")
    found = _repo(hub, call).history(call.parts["rev"])
    return _paged(
        hub,
        call,
        [{key: vars(commit)[key] for key in keys} | {"authors": [{"user": commit.author}]} for commit in found],
        hub.page,
    )


def resolve(hub: HubServer, call: Call) -> Response:
    commit = _repo(hub, call).at(call.parts["rev"])
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    file = commit.files.get(call.parts["path"])
    if file is None:
        refusal = Refused(404, f"{call.parts['path']} does not exist", "EntryNotFound")
        refusal.answer.headers["X-Repo-Commit"] = commit.id
        raise refusal
    etag = file.sha256 if file.lfs else file.blob
    headers |= {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(file.content))}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.request.headers.get("range", ""))
    content, status = file.content, 200
    if asked:
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        content, status = content[first : last + 1], 206
    headers["Content-Length"] = str(len(content))
    shown = b"" if call.request.method == "HEAD" else content
    return Response(shown, status, headers, media_type="application/octet-stream")


# --- writing


def validate_yaml(hub: HubServer, call: Call) -> Response:
    errors = judge.FAULTS[call.json.get("repoType", "model")](call.json["content"])
    body = {"errors": [{"message": message} for message in errors], "warnings": []}
    return JSONResponse(body, 400 if errors else 200)


def _tasks(hub: HubServer, dataset: str) -> set[str]:
    """Ids of the tasks in a data set's eval.yaml."""
    repo = hub.repos.get(("dataset", dataset))
    file = repo.at("main").files.get("eval.yaml") if repo else None
    return {task["id"] for task in yaml.safe_load(file.content)["tasks"]} if file else set()


def preupload(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call, write=True)
    files = repo.at(call.parts["rev"]).files
    answers = []
    for asked in call.json["files"]:
        path, there = asked["path"], files.get(asked["path"])
        lfs = bool(LFS.search(path)) or asked["size"] > 10 * 2**20
        known = {"oid": there.sha256 if there.lfs else there.blob} if there else {}
        mode = "lfs" if lfs and asked["size"] else "regular"
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return JSONResponse({"files": answers})


def lfs_batch(hub: HubServer, call: Call) -> Response:
    _repo(hub, call, write=True)
    objects = []
    for asked in call.json["objects"]:
        href = f"{hub.url}/_lfs/{asked['oid']}/{asked['size']}"
        actions = {} if asked["oid"] in hub.objects else {"actions": {"upload": {"href": href}}}
        objects.append({"oid": asked["oid"], "size": asked["size"], **actions})
    return JSONResponse({"transfer": "basic", "objects": objects})


def lfs_upload(hub: HubServer, call: Call) -> Response:
    if hashlib.sha256(call.body).hexdigest() != call.parts["oid"] or len(call.body) != int(call.parts["size"]):
        raise Refused(400, "the content does not have this SHA-256 and size")
    hub.objects[call.parts["oid"]] = call.body
    return Response()


def commit(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call, write=True)
    lines = [json.loads(line) for line in call.body.splitlines()]
    header = lines[0]["value"]
    ref = repo.ref(call.parts["rev"])
    if ref is None or ref.startswith("refs/tags/"):
        raise Refused(404, f"Invalid rev id: {call.parts['rev']}", "RevisionNotFound")
    if header.get("parentCommit") not in (None, repo.refs[ref]):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repo.at(ref).files)
    for line in lines[1:]:
        key, value = line["key"], line["value"]
        path = value["path"]
        if key == "file":
            files[path] = File(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in hub.objects:
                raise Refused(400, f"LFS pointer of {path} points to an object that was not uploaded")
            files[path] = File(hub.objects[value["oid"]], lfs=True)
        elif key == "deletedFile" and path in files:
            del files[path]
        elif key == "deletedFolder":
            files = {name: file for name, file in files.items() if not name.startswith(path.rstrip("/") + "/")}
        else:
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    faults = judge.FAULTS[repo.kind](files.get("README.md", File(b"")).content.decode())
    for path, file in files.items():
        if path.startswith(".eval_results/"):
            faults += judge.faults_of_results(file.content, lambda dataset: _tasks(hub, dataset))
    if faults:
        raise Refused(400, faults[0])
    pull = {}
    if "create_pr" in call.query:
        ref = _new_pull_request(hub, call, repo, header["summary"])
        pull = {"pullRequestUrl": f"{hub.url}/{repo.id}/discussions/{ref.rpartition('/')[2]}"}
    new = repo.commit(ref, files, header["summary"], header["description"], str(call.who.name))
    return JSONResponse({"commitOid": new.id, "commitUrl": f"{hub.url}/{repo.id}/commit/{new.id}", **pull})


def _check_ref(name: str) -> None:
    """As git's check-ref-format."""
    if not REF.fullmatch(name):
        raise Refused(400, f"Invalid reference name: {name}")


def branch(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call, write=True)
    _check_ref(call.parts["name"])
    name = f"refs/heads/{call.parts['name']}"
    if name in repo.refs:
        raise Refused(409, f"Reference already exists: {name}")
    repo.refs[name] = repo.at(call.json.get("startingPoint") or "main").id
    return JSONResponse({})


def tag(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call, write=True)
    _check_ref(call.json["tag"])
    name = f"refs/tags/{call.json['tag']}"
    if name in repo.refs:
        raise Refused(409, f"Reference already exists: {name}")
    repo.refs[name] = repo.at(call.parts["rev"]).id
    return JSONResponse({})


def delete_ref(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call, write=True)
    kind = {"branch": "heads", "tag": "tags"}[call.parts["what"]]
    if repo.refs.pop(f"refs/{kind}/{call.parts['name']}", None) is None:
        raise Refused(404, "no such reference", "RevisionNotFound")
    return JSONResponse({})


# --- pull requests


def _new_pull_request(hub: HubServer, call: Call, repo: Repo, title: str) -> str:
    number = len(repo.discussions) + 1
    repo.discussions.append(
        {
            "num": number,
            "title": title,
            "status": "draft",
            "author": {"name": call.who.name},
            "createdAt": _now(),
            "repo": {"name": repo.id, "type": repo.kind},
            "isPullRequest": True,
            "events": [],
            "filesWithConflicts": [],
            "changes": {"base": "refs/heads/main"},
            "diff": "",
        }
    )
    repo.refs[f"refs/pr/{number}"] = repo.refs["refs/heads/main"]
    return f"refs/pr/{number}"


def discuss(hub: HubServer, call: Call) -> Response:
    repo = _repo(hub, call)
    if call.who.role != "write":
        raise Refused(403, "this token may only read")
    return JSONResponse({"num": int(_new_pull_request(hub, call, repo, call.json["title"]).rpartition("/")[2])})


def discussions(hub: HubServer, call: Call) -> Response:
    author = call.query.get("author")
    found = [item for item in _repo(hub, call).discussions if author in (None, item["author"]["name"])]
    return JSONResponse({"discussions": found, "count": len(found), "start": 0})


def discussion(hub: HubServer, call: Call) -> Response:
    return JSONResponse(_discussion(hub, call))


def _discussion(hub: HubServer, call: Call, write: bool = False) -> dict[str, Any]:
    found = _repo(hub, call, write).discussions
    number = int(call.parts["number"])
    if number > len(found):
        raise Refused(404, "no such discussion")
    return found[number - 1]


def status(hub: HubServer, call: Call) -> Response:
    found = _discussion(hub, call, write=True)
    found["status"] = call.json["status"]
    event = {"id": "0", "type": "status-change", "createdAt": _now(), "author": found["author"]}
    return JSONResponse({"newStatus": event | {"data": {"status": found["status"]}}})


def merge(hub: HubServer, call: Call) -> Response:
    repo, found = _repo(hub, call, write=True), _discussion(hub, call, write=True)
    source = repo.at(f"refs/pr/{found['num']}")
    repo.commit("refs/heads/main", source.files, found["title"], "", str(call.who.name))
    found["status"] = "merged"
    return JSONResponse({})


# --- collections


def collect(hub: HubServer, call: Call) -> Response:
    owner, title = call.json["namespace"], call.json["title"]
    if not call.who.may_write(owner, owner):
        raise Refused(403, f"You don't have the rights to create a collection under the namespace {owner!r}")
    if not 0 < len(title) < 60:
        raise Refused(400, '"title" must have 1 to 59 characters')
    for slug, there in hub.collections.items():
        if (there["owner"]["name"], there["title"]) == (owner, title):
            raise Refused(409, "Collection already exists", slug=slug)
    slug = f"{owner}/{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}-{secrets.token_hex(12)}"
    facts = {"owner": {"name": owner, "type": "user"}, "private": call.json["private"], "lastUpdated": _now()}
    facts |= {"slug": slug, "title": title, "items": [], "theme": "green", "upvotes": 0, "position": 0}
    hub.collections[slug] = facts
    return JSONResponse(facts)


def _collection(hub: HubServer, call: Call) -> dict[str, Any]:
    found = hub.collections.get(call.parts["slug"])
    if found is None or (found["private"] and found["owner"]["name"] not in call.who.places):
        raise Refused(404, "Collection not found")
    return found


def collection(hub: HubServer, call: Call) -> Response:
    return JSONResponse(_collection(hub, call))


def add_item(hub: HubServer, call: Call) -> Response:
    found, item = _collection(hub, call), call.json["item"]
    if not call.who.may_write(found["owner"]["name"], found["owner"]["name"]):
        raise Refused(403, "You do not have the rights to write to this collection")
    if (item["type"], item["id"]) not in hub.repos:
        raise Refused(404, "Repository not found", "RepoNotFound")
    if any((each["type"], each["id"]) == (item["type"], item["id"]) for each in found["items"]):
        raise Refused(409, "This item is already in the collection")
    found["items"].append({"_id": secrets.token_hex(12), **item, "position": len(found["items"])})
    return JSONResponse(found)


_API = r"/api/(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_FILES = r"/(?P<kinds>datasets/|spaces/)?(?P<id>[^/]+/[^/]+)"
_REV = r"(?P<rev>[^/]+)"
ROUTES: list[tuple[str, str, Callable[[HubServer, Call], Response]]] = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("DELETE", "/api/repos/delete", delete),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("GET", "/api/(?P<kinds>models|datasets|spaces)", listing),
    ("GET", _API, info),
    ("GET", f"{_API}/revision/{_REV}", info),
    ("PUT", f"{_API}/settings", settings),
    ("GET", f"{_API}/auth-check(?P<write>/write)?", auth_check),
    ("GET", f"{_API}/tree/{_REV}(?P<path>/.*)?", tree),
    ("POST", f"{_API}/paths-info/{_REV}", paths_info),
    ("GET", f"{_API}/refs", refs),
    ("GET", f"{_API}/commits/{_REV}", commits),
    ("POST", f"{_API}/preupload/{_REV}", preupload),
    ("POST", f"{_API}/commit/{_REV}", commit),
    ("POST", f"{_API}/branch/(?P<name>[^/]+)", branch),
    ("POST", f"{_API}/tag/{_REV}", tag),
    ("DELETE", f"{_API}/(?P<what>branch|tag)/(?P<name>[^/]+)", delete_ref),
    ("POST", f"{_API}/discussions", discuss),
    ("GET", f"{_API}/discussions", discussions),
    ("GET", rf"{_API}/discussions/(?P<number>\d+)", discussion),
    ("POST", rf"{_API}/discussions/(?P<number>\d+)/status", status),
    ("POST", rf"{_API}/discussions/(?P<number>\d+)/merge", merge),
    ("POST", "/api/collections", collect),
    ("GET", "/api/collections/(?P<slug>[^/]+/[^/]+)", collection),
    ("POST", "/api/collections/(?P<slug>[^/]+/[^/]+)/items", add_item),
    ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})/(?P<size>\d+)", lfs_upload),
    ("GET", f"{_FILES}/resolve/{_REV}/(?P<path>.+)", resolve),
]
