"""Secrets are planted, the commands run and fail, and every byte that they left is searched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.servers import postgresql, postgresql_programs
from tests.submission.kfp_stub import KfpStub

PASSWORD = "planted-pass%2Fword"
TOKEN = "planted-token-4711"
# The plain form of the password is one that a library may tell.
PLANTED = (b"planted-pass", b"planted-token")
LOOP = """
name: shades
lake: lake
sources: [{uri: photos}]
holdout: {fraction: 0.25}
selection: {n_samples: 3}
"""


@dataclass
class Place:
    """A project's folder, and everything that its commands said."""

    folder: Path
    catalog: str
    said: list[bytes] = field(default_factory=list)

    def visionloop(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "visionloop", *arguments],
            cwd=self.folder,
            env={**os.environ, "VISIONLOOP_KFP_TOKEN": TOKEN, **environment},
            capture_output=True,
            timeout=120,
            check=False,
        )
        self.said += [done.stdout, done.stderr]
        return done

    def found(self) -> list[str]:
        """Return where a planted secret stands."""
        places = [f"output {text[:300]!r}" for text in self.said if any(p in text for p in PLANTED)]
        for path in self.folder.rglob("*"):
            if path.is_file() and any(p in path.read_bytes() for p in PLANTED):
                places.append(str(path.relative_to(self.folder)))
        return places


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    random = np.random.default_rng(0)
    for number in range(12):
        kind = tmp_path / "photos" / ("dark" if number % 2 else "light")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(kind / f"{number}.png")
    (tmp_path / "loop.yaml").write_text(LOOP, encoding="utf-8")
    if postgresql_programs() is None:
        # A stand-in that any machine has: SQLite ignores what it is not asked for.
        yield Place(tmp_path, f"sqlite:///{tmp_path}/catalog.sqlite?password={PASSWORD}")
        return
    with postgresql() as address:
        yield Place(tmp_path, address.replace("lake@", f"lake:{PASSWORD}@"))


# A kind of catalog that is refused, with its address in the error.
REFUSED = f"http://shades:{PASSWORD}@127.0.0.1:8181"


def test_what_succeeds_and_what_fails_tells_no_secret(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mounted = tmp_path_factory.mktemp("mounted") / "catalog"
    mounted.write_text(place.catalog, encoding="utf-8")
    by_file = {"VISIONLOOP_CATALOG_FILE": str(mounted)}
    by_variable = {"VISIONLOOP_CATALOG": place.catalog}
    config = ("--config", "loop.yaml")

    run = ("run", "intake", *config, "--debug", "--json")
    done = place.visionloop(*run, **by_file)
    assert done.returncode == 0, done.stderr
    assert not (place.folder / "lake" / "catalog.sqlite").exists(), "the file named another catalog"
    page = ("report", *config, "--output", "report.html")
    assert place.visionloop(*page, **by_variable).returncode == 0
    assert (place.folder / "report.html").stat().st_size > 1000
    assert place.visionloop("select", *config, "-n", "2", **by_variable).returncode == 0
    place.visionloop("doctor", *config, "--json", **by_file)
    assert (
        place.visionloop(
            "compile", *config, "--volume", f"lake:{place.folder}", "--output", "build", **by_file
        ).returncode
        == 0
    )

    # A stage that fails, with its traceback; a catalog that refuses, by itself and in a task.
    gone = ("--set", "lake=lake", "--set", "training.epochs=1")
    (place.folder / "photos").rename(place.folder / "moved")
    failed = place.visionloop(*run, *gone, **by_variable)
    assert failed.returncode == 2 and b"Traceback" in failed.stderr
    (place.folder / "moved").rename(place.folder / "photos")
    for arguments in (run, ("ingest", *config, "--debug")):
        failed = place.visionloop(*arguments, VISIONLOOP_CATALOG=REFUSED)
        assert failed.returncode == 2 and b"Traceback" in failed.stderr
        assert b":***@" in failed.stderr, "the error tells the address, and it is cleaned"
    with KfpStub(refuse=500) as stub:
        mounted_lake = ("--set", f"cluster.volume=claim:{place.folder}")
        submit = ("submit", "round", *config, "--host", stub.url, *mounted_lake, "--debug")
        failed = place.visionloop(*submit, **by_variable)
        assert failed.returncode == 1
    assert place.found() == []


def test_a_password_on_the_command_line_or_in_the_file_is_refused_and_not_repeated(
    place: Place,
) -> None:
    address = f"postgresql+psycopg2://lake:{PASSWORD}@host/db"
    refused = place.visionloop("run", "intake", "--config", "loop.yaml", "--debug", "--set",
                               f"catalog={address}")  # fmt: skip
    assert refused.returncode == 2 and b"VISIONLOOP_CATALOG_FILE" in refused.stderr
    misspelt = place.visionloop("run", "intake", "--config", "loop.yaml", "--set",
                                f"catalogue={address}")  # fmt: skip
    assert misspelt.returncode == 2 and b":***@" in misspelt.stderr
    (place.folder / "with.yaml").write_text(f"lake: lake\ncatalog: {address}\n", encoding="utf-8")
    refused = place.visionloop("report", "--config", "with.yaml", "--debug")
    assert refused.returncode == 2 and b"VISIONLOOP_CATALOG_FILE" in refused.stderr
    assert place.found() == ["with.yaml"]
    assert not (place.folder / "lake").exists()
