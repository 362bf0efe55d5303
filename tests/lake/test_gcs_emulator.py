"""Large objects and ranges against a Cloud Storage emulator, also where the connection breaks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import storage_emulator
from visionloop.lake.storage import GoogleCloudStorage

MIB = 1 << 20


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with storage_emulator(tmp_path_factory.mktemp("bucket")) as address:
        body = b'{"name": "photos"}'
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p", body, {"content-type": "application/json"}
        )
        urllib.request.urlopen(request).read()
        yield address


@contextlib.contextmanager
def breaking(address: str, *, after: int) -> Iterator[tuple[str, list[int]]]:
    """Pass connections on to a server, and break the one that carries a byte.

    Args:
        address: The server's.
        after: Bytes that come through, up and down together, before the break, which is the only
            one.

    Yields:
        The address to use instead, and a list that gets the number of bytes at the break.
    """
    host, port = address.removeprefix("http://").split(":")
    left, broken, lock = [after], [], threading.Lock()

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(MIB):
                with lock:
                    left[0] -= len(part)
                    ends = left[0] < 0 and not broken
                    if ends:
                        broken.append(after - left[0])
                if ends:
                    break
                target.sendall(part)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    far = socket.create_connection((host, int(port)))
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=copy, args=pair, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", broken
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def put(folder: Path, megabytes: int) -> tuple[Path, bytes]:
    folder.mkdir()
    data = hashlib.sha512(b"seed").digest() * (megabytes * MIB // 64) + b"end"
    (folder / "weights.pt").write_bytes(data)
    return folder, data


def test_any_range_of_an_object_is_read(emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    storage, uri = GoogleCloudStorage(), "gs://photos/ranges.bin"
    data = os.urandom(70_000)
    storage.write(uri, data)
    for start, length in [
        (0, 1),
        (0, 70_000),
        (69_999, 1),
        (69_990, 100),
        (1234, 0),
        (500, 65_536),
    ]:
        assert storage.read_range(uri, start, length) == data[start : start + length]
    assert storage.read_range(uri, 70_000, 10) == b""
    assert storage.read_range(uri, 0, 10**12) == data


@pytest.mark.parametrize("after", [MIB // 2, 20 * MIB])
def test_a_large_file_goes_up_in_parts_though_the_connection_breaks(
    emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    source, data = put(tmp_path / "up", 40)
    with breaking(emulator, after=after) as (address, broken):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        GoogleCloudStorage().upload(source, "gs://photos/models")
        assert broken
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    assert GoogleCloudStorage().read("gs://photos/models/weights.pt") == data


def test_a_large_object_comes_down_though_the_connection_breaks(
    emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = put(tmp_path / "up", 40)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    GoogleCloudStorage().upload(source, "gs://photos/large")
    with breaking(emulator, after=20 * MIB) as (address, broken):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        down = GoogleCloudStorage().download("gs://photos/large", tmp_path / "down")
        assert broken
    assert [path.name for path in down.iterdir()] == ["weights.pt"]
    assert (down / "weights.pt").read_bytes() == data
