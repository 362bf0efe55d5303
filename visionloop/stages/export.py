"""Stage `export`: check a model's ONNX graph against PyTorch, and write what is served."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from visionloop.errors import InputError, VisionloopError
from visionloop.stages.artifacts import Artifact, MetricsArtifact, log_metrics
from visionloop.stages.opening import open_stage
from visionloop.task import stage
from visionloop.training.experiments import (
    find_experiment,
    load_bundle,
    serving_uri,
    store_bundle,
    trained_uri,
    version_with,
)

if TYPE_CHECKING:
    from visionloop.inference.model import ModelCard, OnnxModel
    from visionloop.lake import Lake

# Largest difference of a probability or an embedding's component between ONNX and PyTorch.
TOLERANCE = 1e-4


class ExportOutputs(NamedTuple):
    """What `export` returns.

    Attributes:
        lake_version: Lake version in which the experiment names the serving bundle.
        model_uri: The serving bundle.
    """

    lake_version: str
    model_uri: str


@stage
def export(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    model_id: str = "",
    model: Artifact | None = None,
    exported: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
) -> ExportOutputs:
    """Verify the ONNX graph and write the serving bundle.

    The graph must be valid ONNX, answer PyTorch's recorded outputs within 1e-4, and answer an image
    the same alone and among others. The card, with the measures of the holdout, goes into the
    graph's own metadata too, so that the file explains itself without the folder.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        model_id: The model; empty for the newest of the loop's own arm.
        model: Its bundle; None for the lake's copy.
        exported: Receives the serving bundle's folder.
        metrics: Receives the largest difference from PyTorch and the size in bytes.

    Raises:
        InputError: There is no such model, or its bundle is not whole.
        VisionloopError: The ONNX graph is not the model that was trained.
    """
    _, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    row = find_experiment(opened, model_id)
    own_id = row["model_id"]
    uri = serving_uri(opened, own_id)
    with opened.run(
        stage="export",
        round_id=round_id,
        base_version=lake_version,
        inputs={"model_id": own_id},
    ) as run:
        folder = model.path if model is not None else None
        loaded = load_bundle(own_id, trained_uri(opened, own_id), folder)
        difference = check_against_reference(loaded)
        check_batches(loaded)
        bundle = serving_bundle(loaded, row)
        # What is exported may be in service: it is never written over while it is whole.
        if row["uri"] != uri or not _is_whole(uri):
            opened.exists()  # raises where it went away: its folder must not be made anew
            store_bundle(opened.storage, bundle, uri)
        if row["uri"] != uri:
            from visionloop.lake.schemas import arrow_schema

            rows = pa.Table.from_pylist([row | {"uri": uri}], schema=arrow_schema("experiments"))
            run.replace("experiments", rows, f"model_id == '{own_id}'")
        version = run.commit(
            outputs={"model_uri": uri, "max_difference": difference}, counts={"in": 1, "ok": 1}
        )
    if row["uri"] == uri:
        version = version_with(opened, own_id, version, uri=uri)
    size = sum(len(data) for data in bundle.values())
    log_metrics(metrics, {"max_difference_from_pytorch": difference, "bytes": size})
    if exported is not None:
        _leave(opened, uri, loaded.card, exported)
    return ExportOutputs(version, uri)


def check_against_reference(model: OnnxModel) -> float:
    """Return the largest difference between ONNX and PyTorch on the bundle's probe images.

    Raises:
        VisionloopError: It is larger than `TOLERANCE`.
    """
    from visionloop.inference.model import REFERENCE_FILE, check_digest, read_file

    data = read_file(model.uri, REFERENCE_FILE)
    check_digest(model.card, REFERENCE_FILE, data, where=model.uri)
    with np.load(io.BytesIO(data), allow_pickle=False) as reference:
        probabilities, embedding = model.predict(reference["image"])
        difference = max(
            float(np.abs(probabilities - reference["probabilities"]).max()),
            float(np.abs(embedding - reference["embedding"]).max()),
        )
    if not difference <= TOLERANCE:
        raise VisionloopError(
            f"ONNX and PyTorch differ by {difference:.2g} on the probe images, more than "
            f"{TOLERANCE:g}",
            where=model.uri,
            remedy="Use another architecture, or report this one: it does not survive its export",
        )
    return difference


def check_batches(model: OnnxModel) -> None:
    """Check that an image is answered the same alone and among seven.

    Raises:
        VisionloopError: It is not: the graph's batch axis is fixed, or its rows influence another.
    """
    size = model.card.image_size
    rng = np.random.Generator(np.random.PCG64(1))
    images = rng.random((7, 3, size, size), dtype=np.float32)
    together = model.predict(images)
    alone = [model.predict(images[i : i + 1]) for i in range(len(images))]
    for part in (0, 1):
        difference = np.abs(together[part] - np.concatenate([one[part] for one in alone])).max()
        if not difference <= TOLERANCE:
            raise VisionloopError(
                f"an image is answered differently alone and among seven, by {difference:.2g}",
                where=model.uri,
                remedy="Use an architecture whose rows are independent in evaluation mode",
            )


def serving_bundle(model: OnnxModel, row: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of the serving bundle, the card last.

    Args:
        model: The checked model.
        row: Its experiment, whose measures go into the card.

    Raises:
        VisionloopError: The graph is not valid ONNX.
    """
    import onnx

    from visionloop.inference.model import CARD_FILE, MODEL_FILE, read_file

    measures = json.loads(row["metrics"] or "{}")
    card = model.card.model_copy(update={"metrics": measures, "files": {}})
    graph = onnx.load_from_string(read_file(model.uri, MODEL_FILE))
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError as error:
        raise VisionloopError(
            f"the exported graph is not valid ONNX: {str(error).strip().splitlines()[0]}",
            where=model.uri,
            remedy="Train the model again",
        ) from error
    del graph.metadata_props[:]
    # The hash of a file cannot be inside the file.
    onnx.helper.set_model_props(
        graph,
        {
            "model_id": card.model_id,
            "classes": json.dumps(card.classes),
            "card": json.dumps(card.model_dump(exclude={"files"}), ensure_ascii=False),
        },
    )
    data = graph.SerializeToString(deterministic=True)
    card = card.model_copy(update={"files": {MODEL_FILE: hashlib.sha256(data).hexdigest()}})
    return {MODEL_FILE: data, CARD_FILE: card.to_json().encode()}


def _is_whole(uri: str) -> bool:
    from visionloop.inference.model import OnnxModel

    try:
        OnnxModel.load(uri)
    except InputError:
        return False
    return True


def _leave(lake: Lake, uri: str, card: ModelCard, exported: Artifact) -> None:
    if Path(exported.path).is_dir():
        shutil.rmtree(exported.path)
    lake.storage.download(uri, exported.path)
    exported.metadata.update(
        model_id=card.model_id,
        architecture=card.architecture,
        classes=", ".join(card.classes),
        image_size=card.image_size,
        preprocessing=card.preprocessing,
        training_set=str(card.training.get("training_set", "")),
        opset=card.opset,
        lake_uri=uri,
    )
