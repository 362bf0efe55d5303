"""Which permission on the bucket lacks is named, against servers that answer as Cloud Storage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import answering, storage_emulator
from visionloop.cli.lake_rights import lake_rights
from visionloop.lake.storage import StorageError, open_storage


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        import urllib.request

        body = json.dumps({"name": "b"}).encode()
        headers = {"Content-Type": "application/json"}
        made = urllib.request.Request(f"{address}/storage/v1/b?project=p", body, headers)
        urllib.request.urlopen(made).read()
        yield "gs://b/lake"


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Cloud Storage with one bucket, which answers 403 to the methods of this set."""
    refused: set[str] = set()
    kept: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def _refuses(self, permission: str) -> bool:
            if permission not in refused:
                return False
            message = (
                "tasks@p.iam.gserviceaccount.com does not have "
                f"storage.objects.{permission} access to the Google Cloud Storage object."
            )
            error = {"code": 403, "message": message, "errors": [{"reason": "forbidden"}]}
            self._answer(403, {"error": error})
            return True

        def _answer(self, status: int, body: object) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.endswith("/o"):
                if not self._refuses("list"):
                    self._answer(200, {"kind": "storage#objects", "items": []})
            elif not self._refuses("get"):
                self._answer(200, kept["object"])

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._refuses("create"):
                kept["object"] = b"visionloop doctor"
                assert b"visionloop doctor" in body
                self._answer(200, {"name": "x", "bucket": "b", "generation": "1", "size": "17"})

        def do_DELETE(self) -> None:
            if not self._refuses("delete"):
                kept.clear()
                self._answer(204, b"")

        def log_message(self, *args: object) -> None:
            pass

    with answering(Handler) as host:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}")
        yield refused


def test_all_rights_are_tried_and_nothing_is_left(bucket: str) -> None:
    assert lake_rights(bucket).state == "ok"
    assert list(open_storage(bucket).list(bucket)) == []


def test_a_stub_that_refuses_nothing_is_well(denied: set[str]) -> None:
    assert lake_rights("gs://b/lake").state == "ok"


@pytest.mark.parametrize("permission", ["list", "create", "get", "delete"])
def test_the_permission_that_lacks_is_named(denied: set[str], permission: str) -> None:
    denied.add(permission)
    found = lake_rights("gs://b/lake")
    assert found.state == "fail" and f"lacks storage.objects.{permission} under" in found.found
    assert "gs://b " in found.remedy and "roles/storage.objectUser" in found.remedy
    assert ("was left there" in found.found) == (permission == "delete")
    assert ("could not be tried" in found.found) == (permission == "create")


def test_all_that_lack_are_named_at_once(denied: set[str]) -> None:
    denied |= {"list", "get", "delete"}
    told = lake_rights("gs://b/lake").found
    assert "storage.objects.list, storage.objects.get, storage.objects.delete" in told


def test_a_bucket_that_does_not_exist_is_no_question_of_rights(bucket: str) -> None:
    with pytest.raises(StorageError, match="no bucket 'another'"):
        lake_rights("gs://another/lake")


def test_a_folder_is_tried_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    assert lake_rights(str(tmp_path / "lake")).state == "ok"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
