"""The small image, built for real, and run as a pod of the standard *restricted* runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.locks import ROOT
from tests.inference.graphs import write_model
from visionloop import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

IMAGE = "localhost/visionloop-test:cpu"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# A root that cannot be written to, /tmp in memory, the image's own user, nobody's capabilities.
POD = """
mount --bind "$root" "$root" && mount -o remount,ro,bind "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev"
mkdir "$root/tmp/given" && mount --bind "$given" "$root/tmp/given"
exec env -i $variables /usr/sbin/chroot --userspec="$user" --groups= "$root" \
    /usr/bin/setpriv --no-new-privs --bounding-set=-all sh -c 'cd /tmp && exec "$@"' sh "$@"
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def buildah(*arguments: str) -> str:
    """Run buildah and return what it prints."""
    answer = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def built() -> Iterator[str]:
    """Build the image and return its name."""
    base = os.environ.get("VISIONLOOP_TEST_BASE_IMAGE", "")
    if not base:
        pytest.skip("no base image to build from: name one with VISIONLOOP_TEST_BASE_IMAGE")
    if os.geteuid() or not shutil.which("buildah"):
        pytest.skip("building an image here needs buildah, and root")
    given = {"TARGET": "cpu", "IMAGE": IMAGE, "BASE_IMAGE": base, "BUILDER": "buildah"}
    if CERTIFICATES.exists():
        given["CA_CERTIFICATES"] = str(CERTIFICATES)
    answer = subprocess.run(
        [str(ROOT / "images" / "build")],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-3000:]
    yield IMAGE
    buildah("rmi", IMAGE)


@pytest.fixture(scope="module")
def pod(built: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a command in the image; /tmp/given is a folder with a model."""
    given = tmp_path_factory.mktemp("given")
    write_model(given / "model")
    given.chmod(0o777)
    container = buildah("from", built)
    config = json.loads(buildah("inspect", container))["OCIv1"]["config"]
    root = buildah("mount", container)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        values = {
            "root": root,
            "given": str(given),
            "user": config["User"],
            "variables": " ".join(config["Env"]),
        }
        return subprocess.run(
            ["unshare", "--mount", "sh", "-eu", "-c", POD, "sh", *command],
            env={**os.environ, **values},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    yield run
    buildah("rm", container)


def test_it_starts_as_a_number_on_a_root_that_it_cannot_write(pod: Run) -> None:
    answer = pod("visionloop", "--version")
    assert answer.stdout.strip() == f"visionloop {__version__}", answer.stderr
    assert pod("id", "-u").stdout.strip() == "10001"
    refused = pod("touch", "/opt/visionloop/x")
    assert refused.returncode and "Read-only file system" in refused.stderr


def test_it_holds_no_pytorch_no_pip_and_no_compiler(pod: Run) -> None:
    assert "No module named 'torch'" in pod("python", "-c", "import torch").stderr
    for program in ("pip", "gcc", "cc", "make"):
        assert pod("which", program).returncode, program


def test_everything_in_it_is_compiled(pod: Run) -> None:
    program = """
    import importlib.util, pathlib, sys, visionloop
    folder = pathlib.Path(visionloop.__file__).parent.parent
    files = [path for path in folder.rglob("*.py") if "_internal" not in path.parts]
    cached = [pathlib.Path(importlib.util.cache_from_source(str(path))) for path in files]
    print(len(files), sum(not path.exists() for path in cached))
    """
    n_files, n_missing = pod("python", "-c", textwrap.dedent(program)).stdout.split()
    assert int(n_files) > 3000 and n_missing == "0"


def test_a_task_of_a_pipeline_can_be_executed(pod: Run) -> None:
    answer = pod("python3", "-m", "kfp.dsl.executor_main", "--help")
    assert answer.returncode == 0 and "--component_module_path" in answer.stdout
    compiled = pod("visionloop", "compile", "--output", "/tmp/build")
    assert compiled.returncode == 0, compiled.stderr


def test_predictor_and_collector_answer_and_the_harvest_takes_their_events(pod: Run) -> None:
    program = """
    wait_for() { for _ in $(seq 300); do [ -s "$1" ] && return; sleep 0.1; done; exit 9; }
    export VISIONLOOP_PORT_FILE=/tmp/collector.json
    visionloop collect --lake /tmp/lake --loop test --port 0 & collector=$!
    trap 'kill $collector' EXIT
    wait_for $VISIONLOOP_PORT_FILE
    visionloop health
    export VISIONLOOP_PORT_FILE=/tmp/predictor.json
    port=$(sed 's/.*"http": \\([0-9]*\\).*/\\1/' /tmp/collector.json)
    visionloop serve --model /tmp/given/model --name test --port 0 --grpc-port -1 \\
        --events "http://127.0.0.1:$port" & predictor=$!
    trap 'kill $predictor $collector' EXIT
    wait_for $VISIONLOOP_PORT_FILE
    visionloop health
    python -c '
    import io, json, time, urllib.request
    from PIL import Image
    url = "http://127.0.0.1:%d" % json.load(open("/tmp/predictor.json"))["http"]
    for _ in range(300):
        try:
            urllib.request.urlopen(url + "/v2/health/ready"); break
        except OSError:
            time.sleep(0.1)
    file = io.BytesIO(); Image.new("RGB", (8, 8)).save(file, "png")
    request = urllib.request.Request(url + "/v1/models/test:predict", file.getvalue())
    request.add_header("content-type", "image/png")
    print(urllib.request.urlopen(request).read().decode())
    '
    kill $predictor && wait $predictor
    kill $collector && wait $collector
    trap - EXIT
    visionloop harvest --lake /tmp/lake --loop test
    """
    answer = pod("bash", "-euc", textwrap.dedent(program))
    told = answer.stdout + answer.stderr
    assert answer.returncode == 0, told
    assert told.count("alive on port") == 2, told
    assert '"predictions"' in answer.stdout and "1 confidences" in answer.stdout, told
