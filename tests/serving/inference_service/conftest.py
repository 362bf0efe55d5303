"""A loop whose models go to a played KServe with real predictors."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.cluster.api_server import ApiServer
from tests.serving.conftest import SIZE, Starter, write_bundle, write_events
from tests.serving.inference_service.kserve import NAMESPACE, KServe
from visionloop.lake import Lake
from visionloop.serving.inference_service import waiting
from visionloop.serving.pointer import Pointer, pointer_uri, read_pointer
from visionloop.stages import canary
from visionloop.stages.publish import PublishOutputs, publish

KNATIVE = ("serving.knative.dev", "v1", "services", "KnativeService")


def grey(level: int) -> bytes:
    """Return a picture of one grey."""
    out = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), level, np.uint8)).save(out, format="PNG")
    return out.getvalue()


def fail_in_the_dark(folder: Path) -> None:
    """Let a bundle's graph answer NaN, and its server 500, to a picture that begins black."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    nodes = list(model.graph.node)
    constants = {
        "rows": np.array([0], np.int64),
        "columns": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
        "floor": np.array([0.1], np.float32),
        "zero": np.array([0.0], np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    softmax = next(n for n in nodes if n.op_type == "Softmax")
    softmax.input[0] = "spoiled"
    spoil = [
        helper.make_node("Slice", ["flat", "rows", "columns", "axis"], ["first"]),
        helper.make_node("Sub", ["first", "floor"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),  # NaN below 0
        helper.make_node("Mul", ["root", "zero"], ["nothing"]),
        helper.make_node("Add", ["logits", "nothing"], ["spoiled"]),
    ]
    at = nodes.index(softmax)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *spoil, *nodes[at:]])
    onnx.checker.check_model(model)
    _rewrite(folder, model)


def lose_confidence(folder: Path) -> None:
    """Let a bundle's graph answer nearly the same probability for each class."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    (weights,) = [i for i in model.graph.initializer if i.name == "weights"]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 0.01, "weights"))
    _rewrite(folder, model)


def _rewrite(folder: Path, model: Any) -> None:
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    card = json.loads((folder / "card.json").read_text())
    card["files"]["model.onnx"] = hashlib.sha256(data).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


class World:
    """A lake, a cluster with KServe, and the loop between them."""

    def __init__(self, lake: Lake, kserve: KServe, folder: Path) -> None:
        self.lake, self.kserve, self.server = lake, kserve, kserve.server
        self.folder = folder
        self.canary: dict[str, Any] = {"minutes": 0}
        self.settings: dict[str, Any] = {"namespace": NAMESPACE, "timeout_s": 60}
        self.round = -1

    def model(self, model_id: str, seed: int, *changes: Callable[[Path], None]) -> str:
        """Train a model in a round of its own; returns its bundle."""
        folder = self.folder / "lake" / "models" / model_id
        write_bundle(folder, model_id, seed=seed)
        for change in changes:
            change(folder)
        opened = self.lake.rounds.open("run", take_over=True)
        self.round = int(opened.round_id)
        uri = f"file://{folder}"
        with self.lake.run(stage="evaluate", round_id=opened.round_id) as run:
            row = {"model_id": [model_id], "arm": ["loop"], "state": ["passed"], "uri": [uri]}
            run.append("experiments", pa.table(row))
            run.commit()
        return uri

    def config(self) -> str:
        kserve = {**self.settings, "canary": self.canary}
        return json.dumps(
            {
                "name": self.lake.loop,
                "lake": self.lake.uri,
                "serving": {"endpoint": "clothing", "kserve": kserve},
                "cluster": {"volume": f"lake:{self.folder}"},
            }
        )

    def publish(self, model_id: str, **more: Any) -> PublishOutputs:
        uri = f"file://{self.folder / 'lake' / 'models' / model_id}"
        return publish(
            config=self.config(), model_id=model_id, model_uri=uri, passed=True,
            round_id=f"{self.round:04d}", **more,
        )  # fmt: skip

    def pointer(self) -> Pointer | None:
        return read_pointer(pointer_uri(self.lake, "clothing"))

    def states(self) -> dict[str, str]:
        rows = self.lake.read("experiments").to_pylist()
        return {row["model_id"]: row["state"] for row in rows}

    def decision(self) -> dict[str, Any]:
        rows = sorted(self.lake.read("decisions").to_pylist(), key=lambda r: str(r["decided_at"]))
        row: dict[str, Any] = rows[-1]
        return row | {"inputs": json.loads(row["inputs"])}

    def log_events(self) -> None:
        """Let the collector write what the agent sent."""
        name = f"{len(list((self.folder / 'lake').glob('events/*')))}.events.jsonl"
        write_events(self.folder / "lake" / "events" / name, self.kserve.events)
        self.kserve.events = []

    def record(self) -> Path:
        return self.folder / "lake" / "leases" / "clothing.rollout.json"


@pytest.fixture
def make_world(
    lake: Lake, tmp_path: Path, shared: Path, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """Return what makes a world of a mode and a version of KServe."""
    opened: list[ApiServer] = []

    # What a real controller gets to correct itself is a matter of minutes.
    monkeypatch.setattr(waiting, "LASTING_SECONDS", 3.0)
    monkeypatch.setattr(waiting, "AUTOSCALER_SECONDS", 3.0)
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(canary, "_LAST_SECONDS", 2.0)

    def make(mode: str = "Knative", version: str = "v0.20.0") -> World:
        kinds = [KNATIVE] if mode == "Knative" else []
        server = ApiServer(crds=[shared / "crds" / f"kserve-{version}"], kinds=kinds)
        server.__enter__()
        opened.append(server)
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        return World(lake, KServe(server, start, tmp_path, mode), tmp_path)

    yield make
    for server in opened:
        server.__exit__(None, None, None)
