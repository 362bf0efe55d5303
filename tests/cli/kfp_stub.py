"""A small HTTP server that speaks as much of the KFP v2beta1 API as a run needs."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"


class KfpStub:
    """Keeps what was created, and lets a run go through the states that a test names.

    Args:
        states: States that one run answers with, one a look; the last stays.
        tasks: Names and states of the tasks in the last look.
        single_user: Whether namespaces are refused, as a server for one user does.
        refuse: Status that everything but the health check is answered with; 0 refuses nothing.
    """

    def __init__(
        self,
        states: list[str] | None = None,
        tasks: list[tuple[str, str]] | None = None,
        *,
        single_user: bool = True,
        refuse: int = 0,
    ) -> None:
        self.states = list(states or ["SUCCEEDED"])
        self.tasks = tasks or []
        self.single_user = single_user
        self.refuse = refuse
        self.drop_next = 0
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.recurring: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.looks = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> KfpStub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        match path.removeprefix(API).strip("/").split("/"):
            case ["healthz"]:
                return 200, {"multi_user": not self.single_user}
            case ["experiments"]:
                wanted = json.loads(query["filter"][0]) if "filter" in query else {}
                names = [p["stringValue"] for p in wanted.get("predicates", [])]
                names += [p.get("string_value") for p in wanted.get("predicates", [])]
                found = [e for e in self.experiments if e["display_name"] in names or not names]
                return 200, {"experiments": found, "total_size": len(found)}
            case ["runs", run_id]:
                run = next(r for r in self.runs if r["run_id"] == run_id)
                state = self.states[min(self.looks, len(self.states) - 1)]
                self.looks += 1
                details = [
                    {"task_id": str(n), "display_name": name, "state": task_state}
                    for n, (name, task_state) in enumerate(self.tasks)
                ]
                return 200, {**run, "state": state, "run_details": {"task_details": details}}
            case ["recurringruns"]:
                return 200, {"recurringRuns": self.recurring, "total_size": len(self.recurring)}
        return 404, {"error": f"no {path}"}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        match path.removeprefix(API).strip("/").split("/"):
            case ["experiments"]:
                if self.single_user and body.get("namespace"):
                    return 400, {"error": "namespace must not be set in single-user mode"}
                body["experiment_id"] = f"experiment-{len(self.experiments)}"
                self.experiments.append(body)
                return 200, body
            case ["runs"]:
                body |= {"run_id": f"run-{len(self.runs)}", "state": "PENDING"}
                self.runs.append(body)
                return 200, body
            case ["recurringruns"]:
                body["recurring_run_id"] = f"recurring-{len(self.recurring)}"
                self.recurring.append(body)
                return 200, body
        return 404, {"error": f"no {path}"}

    def delete(self, path: str) -> tuple[int, dict[str, Any]]:
        self.recurring = [
            job for job in self.recurring if job["recurring_run_id"] != path.rsplit("/", 1)[1]
        ]
        return 200, {}

    def _handler(stub) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's self is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _serve(self, method: str) -> None:
                url = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                stub.tokens.add(self.headers.get("authorization", ""))
                if stub.refuse and not url.path.endswith("healthz"):
                    self._answer(stub.refuse, {"error": "refused"})
                elif stub.drop_next and "/runs/" in url.path:
                    stub.drop_next -= 1
                    self._answer(503, {"error": "restarting"})
                elif method == "GET":
                    self._answer(*stub.get(url.path, parse_qs(url.query)))
                elif method == "POST":
                    self._answer(*stub.post(url.path, body))
                else:
                    self._answer(*stub.delete(url.path))

            def do_GET(self) -> None:
                self._serve("GET")

            def do_POST(self) -> None:
                self._serve("POST")

            def do_DELETE(self) -> None:
                self._serve("DELETE")

            def log_message(self, *args: object) -> None:
                pass

        return Handler
