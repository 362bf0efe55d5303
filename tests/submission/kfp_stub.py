"""A Kubeflow Pipelines server for tests: real HTTP, answers of 2.17's shape, and asked-for faults.

It keeps pipelines, versions, experiments, runs and recurring runs; a test says through which states
a run goes, and what goes wrong on the way:

    with KfpStub(["RUNNING", "FAILED"], workflow(task("train", "FAILED"))) as server:
        server.fail("POST", "/runs$", 503, done=True)   # made, and the answer got lost
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

from tests.submission.kfp_http import handler

API = "/apis/v2beta1"
# What the server writes where a time is not known yet.
NEVER = "1970-01-01T00:00:00Z"
# gRPC's codes, which stand in an error's body beside the HTTP status.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}


class Refusal(Exception):
    """An error as the server answers it.

    Args:
        status: HTTP status.
        message: The server's words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error as grpc-gateway writes it."""
    code = _CODES.get(status, 2)
    detail = {
        "@type": "type.googleapis.com/google.rpc.Status",
        "code": code,
        "message": message,
    }
    return {"error": message, "code": code, "message": message, "details": [detail]}


@dataclass
class Fault:
    """What happens to the next requests that match.

    Attributes:
        method: HTTP method.
        path: Regular expression that is searched in the path.
        status: Answered instead; 0 resets the connection.
        times: How many requests it meets.
        done: Whether the request is carried out all the same, and only its answer is lost.
        retry_after: Header of that name.
        message: The server's words.
        then: Called when it strikes, for example to rotate a token.
    """

    method: str
    path: str
    status: int = 0
    times: int = 1
    done: bool = False
    retry_after: str = ""
    message: str = "something broke"
    then: Any = None


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    query: dict[str, list[str]]
    token: str
    cookie: str
    body: Any = field(default=None, repr=False)


class KfpStub:
    """The server; a context manager.

    Args:
        states: States that a run answers with, one a look; the last stays.
        tasks: Its `task_details`: names and states, or details as `workflow` makes them; a list of
            such lists gives one a look.
        single_user: Whether namespaces are refused, as a server for one user does.
        refuse: Status that everything but the health check is answered with; 0 refuses nothing.
        tokens: Bearer tokens that are accepted; empty accepts everybody.
        cookies: Session cookies that are accepted instead; others are led to a login page.
        page: Things of a list's page at most.
        certificate: Certificate and key in one file: the server speaks TLS.
    """

    def __init__(
        self,
        states: list[str] | None = None,
        tasks: list[Any] | None = None,
        *,
        single_user: bool = True,
        refuse: int = 0,
        tokens: tuple[str, ...] = (),
        cookies: tuple[str, ...] = (),
        page: int = 100,
        certificate: str = "",
    ) -> None:
        self.states = list(states or ["SUCCEEDED"])
        self.task_looks = _looks(tasks or [])
        self.single_user, self.refuse, self.page = single_user, refuse, page
        self.accepted, self.cookies = list(tokens), list(cookies)
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.recurring: list[dict[str, Any]] = []
        self.packages: dict[str, str] = {}
        self.api_logs: dict[str, str] = {}
        self.ui_logs: dict[str, str] = {}
        self.requests: list[Seen] = []
        self.faults: list[Fault] = []
        self.looks = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = self.url.replace("http:", "https:")
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> KfpStub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, method: str, path: str, status: int = 0, **more: Any) -> None:
        """Let the next request that matches fail; 0 resets its connection."""
        self.faults.append(Fault(method, path, status, **more))

    @property
    def tokens(self) -> set[str]:
        """The sign-ins that came."""
        return {seen.token for seen in self.requests}

    def asked(self, method: str, path: str) -> list[Seen]:
        """Return the requests that came for a path, given as a regular expression."""
        return [s for s in self.requests if s.method == method and re.search(path, s.path)]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Carry out a request.

        Raises:
            Refusal: The server refuses it.
        """
        parts = re.split("[/:]", path.removeprefix(API).strip("/"))
        match method, parts:
            case "GET", ["healthz"]:
                return {"multi_user": not self.single_user}
            case "GET", ["pipelines"]:
                return self._page("pipelines", self.pipelines, query)
            case "POST", ["pipelines"]:
                return self._pipeline(body)
            case "GET", ["pipelines", pipeline_id, "versions"]:
                found = [v for v in self.versions if v["pipeline_id"] == pipeline_id]
                return self._page("pipeline_versions", found, query)
            case "POST", ["pipelines", "upload_version"]:
                return self._version(query, body)
            case "GET", ["experiments"]:
                return self._page("experiments", self.experiments, query)
            case "POST", ["experiments"]:
                return self._experiment(body)
            case "GET", ["runs"]:
                return self._page("runs", self.runs, query)
            case "POST", ["runs"]:
                return self._run(body)
            case "GET", ["runs", run_id]:
                return self._look(_one(self.runs, "run_id", run_id))
            case "POST", ["runs", run_id, "terminate"]:
                _one(self.runs, "run_id", run_id)["state"] = "CANCELED"
                return {}
            case "GET", ["recurringruns"]:
                return self._page("recurringRuns", self.recurring, query)
            case "POST", ["recurringruns"]:
                return self._recurring(body)
            case "POST", ["recurringruns", job, ("enable" | "disable") as word]:
                _one(self.recurring, "recurring_run_id", job)["mode"] = word.upper()
                _one(self.recurring, "recurring_run_id", job)["status"] = f"{word.upper()}D"
                return {}
            case "DELETE", ["recurringruns", job]:
                self.recurring.remove(_one(self.recurring, "recurring_run_id", job))
                return {}
        raise Refusal(404, "")

    def text(self, path: str, query: dict[str, list[str]]) -> str | None:
        """Return the log that a path outside the API answers with; None is no such path."""
        if found := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
            return self.api_logs.get(found[2], "")
        if path == "/k8s/pod/logs":
            return self.ui_logs.get(query["podname"][0], "")
        return None

    def _pipeline(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_namespace(body.get("namespace"))
        named = [p for p in self.pipelines if p["display_name"] == body["display_name"]]
        if any(p.get("namespace") == body.get("namespace") for p in named):
            raise Refusal(
                409,
                "Already exist error: Failed to create a new pipeline. "
                f"The name {body['display_name']} already exist. Please specify a new name",
            )
        return _keep(self.pipelines, body, "pipeline_id", "pipeline")

    def _version(self, query: dict[str, list[str]], package: str) -> dict[str, Any]:
        name, pipeline_id = query["name"][0], query["pipelineid"][0]
        _one(self.pipelines, "pipeline_id", pipeline_id)
        if any(v["display_name"] == name for v in self.versions):
            # Uploads do not pass grpc-gateway: what exists is a 500 with these words.
            raise Refusal(
                500, f"Failed to create a new pipeline version. The name {name} already exist"
            )
        self.packages[name] = package
        version = {
            "pipeline_id": pipeline_id,
            "display_name": name,
            "description": query.get("description", [""])[0],
        }
        return _keep(self.versions, version, "pipeline_version_id", "version")

    def _experiment(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_namespace(body.get("namespace"))
        if any(e["display_name"] == body["display_name"] for e in self.experiments):
            raise Refusal(409, f"Experiment {body['display_name']} already exists")
        body["storage_state"] = "AVAILABLE"
        return _keep(self.experiments, body, "experiment_id", "experiment")

    def _run(self, body: dict[str, Any]) -> dict[str, Any]:
        _one(self.experiments, "experiment_id", body["experiment_id"])
        self._check_reference(body)
        body |= {"state": "PENDING", "finished_at": NEVER}
        return _keep(self.runs, body, "run_id", "run")

    def _recurring(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_reference(body)
        body["status"] = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        body["service_account"] = body.get("service_account") or "pipeline-runner"
        return _keep(self.recurring, body, "recurring_run_id", "recurring")

    def _check_namespace(self, namespace: str | None) -> None:
        if self.single_user and namespace:
            raise Refusal(400, "Invalid input error: In single-user mode, namespace must be empty")
        if not self.single_user and not namespace:
            raise Refusal(400, "Invalid input error: Namespace is required in multi-user mode")

    def _check_reference(self, body: dict[str, Any]) -> None:
        wanted = body["pipeline_version_reference"]
        version = _one(self.versions, "pipeline_version_id", wanted["pipeline_version_id"])
        if version["pipeline_id"] != wanted["pipeline_id"]:
            raise Refusal(400, "the version is not one of that pipeline")

    def _look(self, run: dict[str, Any]) -> dict[str, Any]:
        n, self.looks = self.looks, self.looks + 1
        if run["state"] == "CANCELED":
            state = "CANCELED"
        else:
            state = self.states[min(n, len(self.states) - 1)]
        details = self.task_looks[min(n, len(self.task_looks) - 1)] if self.task_looks else []
        over = state in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
        return {
            **run,
            "state": state,
            "finished_at": "2026-11-22T10:07:00Z" if over else NEVER,
            "run_details": {"task_details": details},
        }

    def _page(
        self, name: str, things: list[dict[str, Any]], query: dict[str, list[str]]
    ) -> dict[str, Any]:
        for predicate in json.loads(query.get("filter", ["{}"])[0]).get("predicates", []):
            value = predicate.get("string_value", predicate.get("stringValue"))
            if predicate["operation"] not in ("EQUALS", 1):
                raise Refusal(400, "unknown operation")
            things = [t for t in things if t.get(predicate["key"]) == value]
        for key in ("experiment_id", "namespace"):
            if wanted := query.get(key, [""])[0]:
                things = [t for t in things if t.get(key, wanted) == wanted]
        first = int(query.get("page_token", ["0"])[0] or 0)
        size = min(int(query.get("page_size", ["10"])[0]), self.page)
        answer = {name: things[first : first + size], "total_size": len(things)}
        if first + size < len(things):
            answer["next_page_token"] = str(first + size)
        return answer


def _keep(
    things: list[dict[str, Any]], body: dict[str, Any], key: str, word: str
) -> dict[str, Any]:
    body[key] = f"{word}-{len(things)}"
    body["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    things.append(body)
    return body


def _one(things: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    for thing in things:
        if thing[key] == value:
            return thing
    raise Refusal(404, f"ResourceNotFoundError: {value} not found")


def _looks(tasks: list[Any]) -> list[list[dict[str, Any]]]:
    looks = tasks if tasks and isinstance(tasks[0], list) else [tasks]
    return [
        [
            step
            if isinstance(step, dict)
            else {"task_id": str(n), "display_name": step[0], "state": step[1]}
            for n, step in enumerate(look)
        ]
        for look in looks
    ]
