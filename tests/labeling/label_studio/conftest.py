"""Fixtures of the tests against a real Label Studio server."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.labeling.label_studio.real_server import LabelStudio, label_studio
from visionloop.config import LoopConfig
from visionloop.labeling.label_studio import LabelStudioProvider
from visionloop.labeling.provider import Ask
from visionloop.lake import Lake

CLASSES = ["cat", "dog", "owl"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the test that comes first the time to install the server and to make its tables."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()) and "label_studio" in item.path.parts:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """Return a server that the tests of one worker share."""
    with label_studio(tmp_path_factory.mktemp("label-studio")) as running:
        yield running


class Loop:
    """A loop with a project at a server, and pictures.

    Args:
        server: The server.
        folder: Where lake and pictures are.
        title: Of the project.
        options: Of the section `labeling`, and `classes`.
    """

    def __init__(self, server: LabelStudio, folder: Path, title: str, **options: Any) -> None:
        self.server, self.folder = server, folder
        classes = options.pop("classes", CLASSES)
        studio = {
            "url": server.url,
            "project": title,
            "media": "inline",
            **options.pop("studio", {}),
        }
        labeling = {"provider": "label_studio", "label_studio": studio, **options}
        given = {"name": "pets", "lake": str(folder / "lake"), "classes": classes}
        self.config = LoopConfig.model_validate({**given, "labeling": labeling})
        self.lake = Lake.open(self.config.lake, loop=self.config.name)
        self.provider = LabelStudioProvider(self.config, self.lake)

    def asks(self, count: int, **changes: Any) -> list[Ask]:
        """Return requests for pictures that are all different."""
        return [replace(self.ask(number), **changes) for number in range(count)]

    def ask(self, number: int, **changes: Any) -> Ask:
        """Return the request for a picture, 40 pixels wide and 20 high."""
        path = self.folder / f"{number}.png"
        if not path.exists():
            # Label Studio shows no image whose file is tiny: noise cannot be packed.
            noise = random.Random(number).randbytes(40 * 20 * 3)
            Image.frombytes("RGB", (40, 20), noise).save(path)
        made = Ask(
            sample_id=hashlib.sha256(path.read_bytes()).hexdigest(),
            uri=path.as_uri(),
            width=40,
            height=20,
            purpose="training",
            rank=number,
            reason=f"Reason {number}.",
            label="dog",
            confidence=0.75,
            model_id="model-1",
            metadata={"camera": "left"},
        )
        return replace(made, **changes)

    @property
    def project(self) -> dict[str, Any]:
        """The project as the server tells it."""
        title = self.config.labeling.label_studio.project
        with self.server.api() as admin:
            found = admin.get("/api/projects", params={"title": title}).json()["results"]
            (one,) = [project for project in found if project["title"] == title]
            told: dict[str, Any] = admin.get(f"/api/projects/{one['id']}").json()
        return told

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks of the project, with answers and suggestions."""
        query = {"project": self.project["id"], "fields": "all", "page_size": 2000}
        with self.server.api() as admin:
            told: list[dict[str, Any]] = admin.get("/api/tasks", params=query).json()["tasks"]
        return told


@pytest.fixture
def loop(
    server: LabelStudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Callable[..., Loop]:
    """Return what makes a loop whose project no other test has."""
    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", server.token)

    def make(**options: Any) -> Loop:
        digest = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
        title = options.pop("title", f"{request.node.name[5:40]} {digest}")
        return Loop(options.pop("server", server), tmp_path, title, **options)

    return make


def choice(label: str) -> dict[str, Any]:
    """Return the choice of a class, as the browser sends it."""
    value = {"choices": [label]}
    return {"from_name": "choice", "to_name": "image", "type": "choices", "value": value}


def rectangle(label: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """Return a box in percent of the image, as the browser sends it."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {
        "from_name": "box",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 40,
        "original_height": 20,
        "image_rotation": 0,
        "value": {**value, "rectanglelabels": [label]},
    }


def answer(client: Any, task: Any, *result: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Submit an answer as the client's user."""
    body = {"result": list(result), "lead_time": 3.5, **more}
    made = client.post(f"/api/tasks/{task}/annotations/", json=body)
    assert made.status_code == 201, made.text
    told: dict[str, Any] = made.json()
    return told
