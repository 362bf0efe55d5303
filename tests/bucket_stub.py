"""A bucket over real HTTP that does what an emulator leaves out: pages, generations, trouble."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

from tests.servers import answering

PAGE = 1000


@dataclass
class Stored:
    """One object."""

    data: bytes
    generation: int
    encoding: str = ""
    crc32c: str = ""

    def __post_init__(self) -> None:
        sum32 = google_crc32c.value(self.data)
        self.crc32c = self.crc32c or base64.b64encode(sum32.to_bytes(4, "big")).decode()


@dataclass
class Bucket:
    """The bucket ``photos``, what was asked of it, and what is to go wrong.

    Attributes:
        objects: By name.
        names: A listing that is made up instead, page by page.
        asked: ``METHOD what`` of each request, what being list, meta, media, upload, part, delete.
        trouble: What the next requests of a kind meet: a status, ``reset``, ``cut`` (the body
            ends early, and its length says so), ``short`` (it ends early and nothing says so),
            ``wrong`` (a byte is another), ``half`` (a part of an upload arrives by half).
            Of the kind ``stored``: the answer to an upload's last part is lost.
        replaced: What overwrites an object as soon as it is being read.
        sessions: Uploads that are not done: the object's name, and what came.
        ranges: The headers ``Range`` of what was read.
    """

    objects: dict[str, Stored] = field(default_factory=dict)
    names: Sequence[str] = ()
    asked: list[str] = field(default_factory=list)
    trouble: dict[str, list[int | str]] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    sessions: dict[str, tuple[str, bytearray]] = field(default_factory=dict)
    replaced: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, data: bytes, encoding: str = "", crc32c: str = "") -> int:
        """Store an object and return its generation."""
        with self.lock:
            before = self.objects[name].generation if name in self.objects else 1000
            self.objects[name] = Stored(data, before + 1, encoding, crc32c)
            return before + 1

    def count(self, what: str) -> int:
        """Return how many requests of a kind came."""
        return sum(one == what for one in self.asked)


@contextlib.contextmanager
def bucket_stub() -> Iterator[tuple[str, Bucket]]:
    """Serve a bucket; yields its address for `STORAGE_EMULATOR_HOST`, and the bucket."""
    bucket = Bucket()

    class Handler(_Handler):
        held = bucket

    with answering(Handler) as address:
        yield f"http://{address}", bucket


class _Handler(BaseHTTPRequestHandler):
    held: Bucket
    protocol_version = "HTTP/1.1"
    # Header and body go out apart: else each answer waits for an acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if re.fullmatch(r"/storage/v1/b/[^/]+", url.path):
            self._answer({"name": "photos"})  # the client looks at it by the way
            return
        found = re.fullmatch(r"(/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?", url.path)
        assert found, self.path
        media, bucket, name = bool(found[1]), found[2], unquote(found[3] or "")
        what = "media" if media else "meta" if name else "list"
        if (trouble := self._met(what)) is None:
            return
        if bucket != "photos":
            self._error(404, "The specified bucket does not exist.")
        elif what == "list":
            self._list(query)
        elif media:
            self._media(name, query, trouble)
        elif name not in self.held.objects:
            self._error(404, f"No such object: photos/{name}")
        else:
            self._answer(self._metadata(name))

    def do_DELETE(self) -> None:
        if self._met("delete") is not None:
            name = unquote(urlsplit(self.path).path.rpartition("/")[2])
            gone = self.held.objects.pop(name, None) is None
            self._error(404, "No such object") if gone else self._send(204, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self._met("upload") is None:
            return
        query = parse_qs(urlsplit(self.path).query)
        if query["uploadType"] == ["resumable"]:
            session = str(len(self.held.sessions))
            self.held.sessions[session] = (json.loads(body)["name"], bytearray())
            place = f"http://{self.headers['host']}/session?id={session}"
            self._send(200, b"", {"location": place})
            return
        mark = re.search(rb'boundary="?([^"]+)"?', self.headers["content-type"].encode())
        assert mark
        _, meta, data, _ = body.split(b"--" + mark[1])
        name = json.loads(meta.split(b"\r\n\r\n", 1)[1])["name"]
        self.held.put(name, data.split(b"\r\n\r\n", 1)[1][:-2])
        self._answer(self._metadata(name))

    def do_PUT(self) -> None:
        session = parse_qs(urlsplit(self.path).query)["id"][0]
        name, so_far = self.held.sessions[session]
        length = int(self.headers["content-length"])
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", self.headers["content-range"])
        assert span
        if span[1] is None:
            self.held.asked.append("how far")
            if str(len(so_far)) == span[2]:
                self._answer(self._metadata(name))
                return
            self._send(308, b"", {"range": f"bytes=0-{len(so_far) - 1}"} if so_far else {})
            return
        kinds = self.held.trouble.get("part", [])
        body = self.rfile.read(length // 2 if kinds[:1] == ["half"] else length)
        assert int(span[1]) == len(so_far), "bytes are left out or come twice"
        if kinds[:1] == ["half"]:
            kinds.pop(0)
            self.held.asked.append("part")
            so_far += body
            self._reset()
            return
        if self._met("part") is None:
            return
        so_far += body
        if span[2] == str(len(so_far)):
            self.held.put(name, bytes(so_far))
            if self.held.trouble.pop("stored", None):
                self._reset()
                return
            self._answer(self._metadata(name))
        else:
            self._send(308, b"", {"range": f"bytes=0-{len(so_far) - 1}"})

    def _list(self, query: dict[str, str]) -> None:
        prefix, start = query.get("prefix", ""), int(query.get("pageToken", 0))
        made = self.held.names
        names = made or sorted(n for n in self.held.objects if n.startswith(prefix))
        size = min(PAGE, int(query.get("maxResults", PAGE)))
        items = [
            {"name": n, "size": "7", "generation": "5", "updated": "2026-05-01T10:00:00Z"}
            if made
            else self._metadata(n)
            for n in names[start : start + size]
        ]
        more = {"nextPageToken": str(start + size)} if start + size < len(names) else {}
        self._answer({"items": items, **more})

    def _metadata(self, name: str) -> dict[str, str]:
        held = self.held.objects[name]
        return {
            "name": name,
            "bucket": "photos",
            "size": str(len(held.data)),
            "generation": str(held.generation),
            "updated": "2026-05-01T10:00:00.000Z",
            "crc32c": held.crc32c,
        }

    def _media(self, name: str, query: dict[str, str], trouble: int | str) -> None:
        held = self.held.objects.get(name)
        if held is None:
            self._error(404, f"No such object: photos/{name}")
            return
        now = str(held.generation)
        if query.get("generation", now) != now:
            self._error(404, f"No such object: photos/{name}")
            return
        if query.get("ifGenerationMatch", now) != now:
            self._error(412, "At least one of the pre-conditions you specified did not hold.")
            return
        data, status = held.data, 200
        headers = {
            "x-goog-hash": f"crc32c={held.crc32c}",  # a composite object has no MD5
            "x-goog-generation": str(held.generation),
            "x-goog-stored-content-length": str(len(held.data)),
            "x-goog-stored-content-encoding": held.encoding or "identity",
        }
        if held.encoding:
            headers["content-encoding"] = held.encoding
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")):
            self.held.ranges.append(span[0])
            start, end = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
            if start >= len(data):
                self._error(416, "The requested range cannot be satisfied.")
                return
            headers["content-range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        if trouble == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        if name in self.held.replaced:
            self.held.put(name, self.held.replaced.pop(name))
        self._send(status, data, headers, str(trouble))

    def _met(self, what: str) -> int | str | None:
        """Note a request; None when it was answered with trouble, else what its body meets."""
        self.held.asked.append(what)
        kinds = self.held.trouble.get(what, [])
        trouble = kinds.pop(0) if kinds else ""
        if isinstance(trouble, int):
            self._error(trouble, "not now")
            return None
        if trouble == "reset":
            self._reset()
            return None
        return trouble

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _answer(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"content-type": "application/json"})

    def _error(self, status: int, message: str) -> None:
        body = json.dumps({"error": {"code": status, "message": message}}).encode()
        self._send(status, body, {"content-type": "application/json"})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, trouble: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        short = trouble in ("cut", "short")
        if trouble != "short":
            self.send_header("content-length", str(len(body)))
        else:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if short else body)
        self.close_connection = self.close_connection or short
