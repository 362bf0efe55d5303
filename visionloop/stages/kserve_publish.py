"""Publishing to an InferenceService: started, asked a known image, tried, promoted or rolled back.

What is under way lies in a small file among the leases (`serving.inference_service.record`), so
that a publish that was killed goes on where it was. The pointer stays the record of what is in
service: it moves when a model has all the traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError, VisionloopError
from visionloop.progress import log, progress
from visionloop.serving.inference_service.endpoint import Endpoint, Served
from visionloop.serving.inference_service.record import (
    PROMOTING,
    ROLLING_BACK,
    TRYING,
    Rollout,
    delete_record,
    read_record,
    record_uri,
    write_record,
)
from visionloop.serving.inference_service.rollout import Rollouts, find_mode
from visionloop.serving.inference_service.waiting import RolloutFailed
from visionloop.serving.pointer import Pointer, pointer_uri, read_pointer, write_pointer

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.inference import OnnxModel
    from visionloop.lake import Lake
    from visionloop.serving.inference_service.smoke import Question


@dataclass(frozen=True)
class Outcome:
    """What came of a rollout.

    Attributes:
        published: Whether the model has all the traffic.
        reason: One sentence.
        figures: For the decision's row and the page.
        changed: Whether it was not in service before.
    """

    published: bool
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    changed: bool = True


def open_rollouts(loop: LoopConfig, lake: Lake) -> Rollouts:
    """Return the rollouts of a loop's InferenceService.

    Args:
        loop: The configuration, with a section `serving.kserve`.
        lake: The lake.

    Raises:
        InputError: The configuration does not fit the cluster.
        VisionloopError: There is no cluster, or no KServe.
    """
    from visionloop.cluster.api import connect

    settings = loop.serving.kserve
    if settings is None:
        raise InputError("no InferenceService is configured", where="serving.kserve")
    cluster = connect(namespace=settings.namespace)
    endpoint = Endpoint(
        loop.endpoint,
        cluster.namespace,
        loop.name,
        settings,
        claim=loop.cluster.claim,
        mount_path=loop.cluster.mount_path,
    )
    mode = find_mode(cluster, endpoint)
    log(f"publish: {endpoint.where}, mode {mode.value}")
    return Rollouts(cluster, endpoint, mode, on_wait=lambda text: log(f"publish: waits for {text}"))


def roll_out(
    loop: LoopConfig, lake: Lake, model: Served, *, tried: bool = True, harvest: Callable[[], None]
) -> Outcome:
    """Bring a model into service, or find that the one before shall stay.

    Args:
        loop: The configuration.
        lake: The lake.
        model: The model.
        tried: Try it on part of the traffic first, as the configuration says.
        harvest: Brings what was answered into the lake.

    Returns:
        What came of it. The rollout's record stays until `forget`, so that figures are not lost
        with a process.

    Raises:
        RolloutFailed: The model did not become ready, or does not answer as its file does; the one
            before has all the traffic again.
        FieldConflict: Another writer owns fields of the InferenceService; nothing was changed.
    """
    rollouts = open_rollouts(loop, lake)
    place, kept = pointer_uri(lake, loop.endpoint), record_uri(lake, loop.endpoint)
    pointer = read_pointer(place)
    again = pointer is not None and pointer.model_id == model.model_id
    before = pointer.before() if pointer is not None and again else pointer
    current = Served(before.model_id, before.model_uri) if before else None
    record = read_record(kept)
    if record is None or record.model_id != model.model_id:
        record = Rollout(model.model_id, previous=current.model_id if current else "")
    if rollouts.endpoint.triton:
        from visionloop.serving.inference_service.triton import export_repository

        for one in (model, current):
            if one is not None:
                export_repository(one.uri, rollouts.endpoint.name)

    def save() -> None:
        write_record(kept, record)

    if again:
        # A candidate that another publish left halfway must not get everything for a moment.
        if rollouts.live() is None or rollouts.has_model(model):
            rollouts.serve(model)
        else:
            rollouts.withdraw(model)
        reason = record.reason or "it is in service already; nothing changed"
        return Outcome(True, reason, _figures(rollouts, record), changed=False)
    if record.state == TRYING:
        save()
        _attempt(rollouts, loop, lake, model, current, record, tried, save, harvest)
    if record.state == ROLLING_BACK:
        if current is not None:
            rollouts.withdraw(current)
        return Outcome(False, record.reason, _figures(rollouts, record))
    rollouts.serve(model)
    now = datetime.now(UTC).isoformat()
    previous = (before.model_id, before.model_uri) if before else ("", "")
    write_pointer(place, Pointer(model.model_id, model.uri, now, *previous))
    return Outcome(True, record.reason, _figures(rollouts, record))


def forget(loop: LoopConfig, lake: Lake) -> None:
    """Remove the record of a rollout whose outcome is a row of the lake.

    Args:
        loop: The configuration.
        lake: The lake.
    """
    delete_record(record_uri(lake, loop.endpoint))


def _attempt(
    rollouts: Rollouts,
    loop: LoopConfig,
    lake: Lake,
    model: Served,
    current: Served | None,
    record: Rollout,
    tried: bool,
    save: Callable[[], None],
    harvest: Callable[[], None],
) -> None:
    """Start the model, ask it, try it; on any failure give the one before everything again."""
    from visionloop.serving.inference_service.smoke import ask_known_image
    from visionloop.stages.canary import try_candidate

    canary = rollouts.endpoint.settings.canary
    beside = current is not None and rollouts.mode.splits and rollouts.live() is not None
    minutes = canary.minutes if beside and tried else 0
    loaded, question = _question(loop, lake, model)
    try:
        with progress("publish", total=2, unit="steps") as bar:
            bar.note(f"waiting for model {model.model_id} to be ready")
            if beside and current is not None:
                pod = rollouts.start(model, current, canary.percent if minutes else 0)
            else:
                pod = rollouts.serve(model, with_pod=True)
            bar.advance()
            # Asked once: what asks a pod of a model that is tried counts as its traffic.
            if not record.smoke:
                bar.note("asking a known image")
                if pod is None:
                    raise RolloutFailed("no pod of the model is there to be asked")
                smoke = ask_known_image(rollouts.cluster, rollouts.endpoint, pod, loaded, question)
                record.smoke = asdict(smoke)
            bar.advance()
        save()
        if minutes and current is not None:
            try_candidate(rollouts, lake, model, current, record, save=save, harvest=harvest)
            return
    except RolloutFailed as error:
        raise _rolled_back(rollouts, current, error) from error
    without = "" if beside or current is None else "; this KServe tries no model beside another"
    record.decide(
        PROMOTING,
        f"answers {record.smoke['told_as']} as its file does "
        f"({record.smoke['label']}, {record.smoke['confidence']:.3f})"
        + (without if tried and canary.minutes else ""),
    )
    save()


def _rolled_back(
    rollouts: Rollouts, current: Served | None, error: RolloutFailed
) -> VisionloopError:
    """Give the model before all the traffic, and tell of both."""
    if current is None:
        return error
    try:
        rollouts.withdraw(current)
    except VisionloopError as second:
        return RolloutFailed(
            f"{error.what}. And the model before, {current.model_id}, does not come back: "
            f"{second.what}",
            where=error.where,
            remedy=f"See the InferenceService, then: visionloop rollback {current.model_id}",
        )
    return RolloutFailed(
        f"{error.what.rstrip('. ')}. Model {current.model_id} has all the traffic again",
        where=error.where,
        remedy=error.remedy,
    )


def _question(loop: LoopConfig, lake: Lake, model: Served) -> tuple[OnnxModel, Question]:
    """Load the model here, and choose the known image."""
    from visionloop.inference import OnnxModel
    from visionloop.inference.preprocessing import to_input
    from visionloop.media.decode import decode_rgb
    from visionloop.serving.inference_service.smoke import Question, made_up_pixels

    loaded = OnnxModel.load(model.uri)
    if loaded.card.model_id != model.model_id:
        raise InputError(
            f"the bundle is of the model {loaded.card.model_id}, not of {model.model_id}",
            where=model.uri,
            remedy="Publish what export returned",
        )
    size = loaded.card.image_size
    settings = loop.serving.kserve
    if settings is not None and settings.smoke_image:
        from visionloop.lake.storage import open_storage

        encoded = open_storage(settings.smoke_image).read(settings.smoke_image)
        pixels = to_input(decode_rgb(encoded), size)
        return loaded, Question(f"the picture {settings.smoke_image}", pixels, encoded)
    held = _holdout_picture(lake)
    if held is not None:
        sample_id, encoded = held
        pixels = to_input(decode_rgb(encoded), size)
        return loaded, Question(f"the holdout's sample {sample_id[:12]}", pixels, encoded)
    return loaded, Question("made-up pixels", made_up_pixels(size))


def _holdout_picture(lake: Lake) -> tuple[str, bytes] | None:
    """Return the first picture of the holdout that can still be read; None for none."""
    import hashlib

    from visionloop.lake.storage import StorageError, open_storage

    rows = lake.read("samples", columns=["sample_id", "uri"], where="split == 'holdout'")
    for row in sorted(rows.to_pylist(), key=lambda row: str(row["sample_id"]))[:20]:
        try:
            encoded = open_storage(row["uri"]).read(row["uri"])
        except StorageError:
            continue
        if hashlib.sha256(encoded).hexdigest() == row["sample_id"]:
            return str(row["sample_id"]), encoded
    return None


def _figures(rollouts: Rollouts, record: Rollout) -> dict[str, Any]:
    return {
        "inference_service": f"{rollouts.endpoint.namespace}/{rollouts.endpoint.name}",
        "mode": rollouts.mode.value,
        "smoke": record.smoke,
        "canary": record.judged,
    }
