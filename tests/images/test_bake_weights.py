"""Weights that a build asks for get into the image as they were meant, or the build fails."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.locks import ROOT

WEIGHTS = b"the weights of a network"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "net.onnx").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def address(context: Path) -> Iterator[str]:
    """Address of a web server that has the weights."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(context / "weights")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def bake(context: Path, *named: str) -> subprocess.CompletedProcess[str]:
    """Run the build's own step."""
    program = [sys.executable, str(ROOT / "images" / "bake_weights.py")]
    folders = ["--context", str(context), "--into", str(context.parent / "image")]
    return subprocess.run([*program, *folders, *named], capture_output=True, text=True, check=False)


def test_a_build_that_asks_for_no_weights_gets_an_empty_folder(context: Path) -> None:
    assert bake(context).returncode == 0
    assert list((context.parent / "image").iterdir()) == []


@pytest.mark.parametrize("where", ["weights/net.onnx", "{context}/weights/net.onnx", "file://"])
def test_a_file_is_baked(context: Path, where: str) -> None:
    uri = f"file://{context}/weights/net.onnx" if where == "file://" else where
    answer = bake(context, f"{uri.format(context=context)}#sha256={DIGEST}")
    assert answer.returncode == 0, answer.stderr
    baked = context.parent / "image" / "net.onnx"
    assert baked.read_bytes() == WEIGHTS and baked.stat().st_mode & 0o777 == 0o644


def test_an_address_is_baked(context: Path, address: str) -> None:
    answer = bake(context, f"{address}/net.onnx#sha256={DIGEST.upper()}")
    assert answer.returncode == 0, answer.stderr
    assert (context.parent / "image" / "net.onnx").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("named", "what"),
    [
        ("weights/net.onnx", "only with their checksum"),
        (f"weights/net.onnx#sha256={'0' * 64}", f"the file's SHA-256 is {DIGEST}"),
        (f"weights/nothing.onnx#sha256={DIGEST}", "cannot be read"),
    ],
)
def test_a_build_fails_on_weights_that_are_not_what_was_asked_for(
    context: Path, named: str, what: str
) -> None:
    answer = bake(context, named)
    assert answer.returncode == 2 and what in answer.stderr and "WEIGHTS" in answer.stderr
    assert list((context.parent / "image").iterdir()) == []


def test_an_address_that_does_not_answer_is_named(context: Path, address: str) -> None:
    answer = bake(context, f"{address}/nothing.onnx#sha256={DIGEST}")
    assert answer.returncode == 2 and "404" in answer.stderr and "nothing.onnx" in answer.stderr


def test_two_files_of_one_name_are_refused(context: Path, address: str) -> None:
    named = [f"{uri}#sha256={DIGEST}" for uri in ("weights/net.onnx", f"{address}/net.onnx")]
    answer = bake(context, *named)
    assert answer.returncode == 2 and "two files would be net.onnx" in answer.stderr
