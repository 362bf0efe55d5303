"""Publishing to an InferenceService: started, asked a known image, tried, promoted or rolled back.

What is under way lies in a small file among the leases (`serving.inference_service.record`), so
that a publish that was killed goes on where it was. The pointer stays the record of what is in
service: it moves when a model has all the traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError, VisionloopError
from visionloop.monitoring.acting_state import BLOCKED_SINCE
from visionloop.progress import log, progress
from visionloop.serving.inference_service.endpoint import Endpoint, Served
from visionloop.serving.inference_service.modes import find_mode
from visionloop.serving.inference_service.record import (
    PROMOTING,
    ROLLED_BACK,
    ROLLING_BACK,
    TRYING,
    Claim,
    Displaced,
    Overruled,
    Rollout,
    delete_record,
    end_rollout,
    note_rolled_back,
    read_record,
    record_uri,
)
from visionloop.serving.inference_service.rollout import Rollouts
from visionloop.serving.inference_service.waiting import RolloutFailed
from visionloop.serving.pointer import Pointer, pointer_uri, read_pointer

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
        blocked: Whether it was tried, and publication was blocked in the end.
        displaced: Whether another rollout took its place: it may be begun again.
    """

    published: bool
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    changed: bool = True
    blocked: bool = False
    displaced: bool = False


def open_rollouts(loop: LoopConfig, lake: Lake) -> Rollouts:
    """Return the rollouts of a loop's InferenceService.

    Args:
        loop: The configuration, with a section `serving.kserve`.
        lake: The lake.

    Raises:
        InputError: The configuration does not fit the cluster.
        VisionloopError: There is no cluster, or no KServe.
    """
    from visionloop import environment
    from visionloop.cluster.api import connect

    settings = loop.serving.kserve
    if settings is None:
        raise InputError("no InferenceService is configured", where="serving.kserve")
    namespace = settings.namespace
    if not namespace and not environment.in_cluster():
        # That of kubectl's context may be any: a second InferenceService would come up there.
        namespace = loop.cluster.namespace
        if not namespace:
            raise InputError(
                "outside a pod nobody can tell the InferenceService's namespace",
                where="serving.kserve.namespace",
                remedy="Set it, or cluster.namespace",
            )
    cluster = connect(namespace=namespace)
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
    loop: LoopConfig,
    lake: Lake,
    model: Served,
    *,
    tried: bool = True,
    harvest: Callable[[], None],
    blocked: Callable[[], str] = str,
    demand: Callable[[Pointer | None], None] = lambda pointer: None,
) -> Outcome:
    """Bring a model into service, or find that the one before shall stay.

    Args:
        loop: The configuration.
        lake: The lake.
        model: The model.
        tried: Try it on part of the traffic first, as the configuration says.
        harvest: Brings what was answered into the lake.
        blocked: Asked before it is promoted: why it must not be, or an empty string.
        demand: Asked with the pointer as it is before a rollout of a model that is not in service;
            raises where it must not be. The rollout ends where another model comes afterwards.

    Returns:
        What came of it. The rollout's record stays until `forget`, so that figures are not lost
        with a process.

    Raises:
        RolloutFailed: The model did not become ready, or does not answer as its file does; the one
            before has all the traffic again.
        FieldConflict: Another writer owns fields of the InferenceService; nothing was changed.
    """
    place, kept = pointer_uri(lake, loop.endpoint), record_uri(lake, loop.endpoint)
    pointer = read_pointer(place)
    again = pointer is not None and pointer.model_id == model.model_id
    before = pointer.before() if pointer is not None and again else pointer
    current = Served(before.model_id, before.model_uri) if before else None
    if not again:
        demand(pointer)
    rollouts = open_rollouts(loop, lake)
    record = read_record(kept)
    # What was rolled back once, a person may put back.
    over = record is not None and record.state == ROLLED_BACK and not tried
    anew = record is None or record.model_id != model.model_id or over
    if anew or record is None:
        record = Rollout(model.model_id, current.model_id if current else "", model.uri)
    if rollouts.endpoint.triton:
        from visionloop.serving.inference_service.triton import export_repository

        for one in (model, current):
            if one is not None:
                export_repository(one.uri, rollouts.endpoint.name)
    if again:
        # A candidate that another publish left halfway must not get everything for a moment.
        left = end_rollout(
            lake, loop.endpoint, f"{model.model_id} was published again", besides=model.model_id
        )
        if rollouts.live() is None or rollouts.is_settled(model):
            rollouts.serve(model)
        else:
            rollouts.withdraw(model, Served(left.model_id, left.model_uri) if left else None)
        if left:
            note_rolled_back(lake, loop.endpoint, left.model_id)
        reason = record.reason or "it is in service already; nothing changed"
        return Outcome(True, reason, _figures(rollouts, record), changed=False)
    claim = Claim(lake, loop.endpoint, record, pointer.model_id if pointer else "")
    try:
        if record.state == ROLLED_BACK:
            raise Overruled(record.reason)
        claim.take(anew=anew)
        guarded = replace(rollouts, guard=claim.check)
        return _rolled_out(guarded, loop, model, current, claim, tried, harvest, blocked)
    except Overruled as error:
        # Whoever ended it sees to the traffic.
        reason, displaced = f"not put into service: {error.what}", isinstance(error, Displaced)
        return Outcome(False, reason, _figures(rollouts, record), displaced=displaced)


def _rolled_out(
    rollouts: Rollouts,
    loop: LoopConfig,
    model: Served,
    current: Served | None,
    claim: Claim,
    tried: bool,
    harvest: Callable[[], None],
    blocked: Callable[[], str],
) -> Outcome:
    """Try a model that is not in service, and do what was decided of it."""
    record = claim.record
    # Also before it is tried: one that goes on after a kill may be blocked since.
    why = blocked() if record.state == TRYING and current is not None else ""
    if record.state == TRYING and not why:
        _attempt(rollouts, loop, model, current, claim, tried, harvest)
    if record.state == PROMOTING and current is not None:
        why = blocked()
    if why:
        record.state, record.reason = ROLLING_BACK, why
        claim.save()
    if record.state == PROMOTING:
        percent = rollouts.endpoint.settings.canary.percent if record.tried_since else 0
        try:
            rollouts.promote(model, current, percent)
        except RolloutFailed as error:
            if current is None:
                delete_record(claim.lake, claim.endpoint, model.model_id)
                raise
            record.state = ROLLING_BACK
            record.reason = f"rolled back: its promotion failed: {error.what.rstrip('. ')}"
            claim.save()
    if record.state == ROLLING_BACK:
        if current is not None:
            _withdraw(rollouts, current, model, record.reason)
            record.state = ROLLED_BACK
            note_rolled_back(claim.lake, claim.endpoint, model.model_id)
        # Told by the reason: whoever was blocked and killed then is blocked still.
        is_blocked = record.reason.startswith(BLOCKED_SINCE)
        return Outcome(False, record.reason, _figures(rollouts, record), blocked=is_blocked)
    now = datetime.now(UTC).isoformat()
    previous = (current.model_id, current.uri) if current else ("", "")
    claim.move(Pointer(model.model_id, model.uri, now, *previous))
    return Outcome(True, record.reason, _figures(rollouts, record))


def forget(loop: LoopConfig, lake: Lake, model_id: str) -> None:
    """Remove the record of a rollout whose outcome is a row of the lake.

    Args:
        loop: The configuration.
        lake: The lake.
        model_id: The model that was rolled out.
    """
    delete_record(lake, loop.endpoint, model_id)


def _attempt(
    rollouts: Rollouts,
    loop: LoopConfig,
    model: Served,
    current: Served | None,
    claim: Claim,
    tried: bool,
    harvest: Callable[[], None],
) -> None:
    """Start the model, ask it, try it; on any failure give the one before everything again."""
    from visionloop.serving.inference_service.smoke import ask_known_image
    from visionloop.stages.canary import try_candidate

    record, lake = claim.record, claim.lake
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
        claim.save()
        if minutes and current is not None:
            try_candidate(rollouts, lake, model, current, record, save=claim.save, harvest=harvest)
            return
    except RolloutFailed as error:
        claim.check()
        if current is None:
            delete_record(lake, claim.endpoint, model.model_id)
            raise
        record.decide(ROLLING_BACK, f"rolled back: {error.what.rstrip('. ')}")
        claim.save()
        _withdraw(rollouts, current, model, error.what)
        # Once what is wrong is mended, it is tried from the start.
        delete_record(lake, claim.endpoint, model.model_id)
        raise RolloutFailed(
            f"{error.what.rstrip('. ')}. Model {current.model_id} has all the traffic again",
            where=error.where,
            remedy=error.remedy,
        ) from error
    without = "" if beside or current is None else "; this KServe tries no model beside another"
    record.decide(
        PROMOTING,
        f"answers {record.smoke['told_as']} as its file does "
        f"({record.smoke['label']}, {record.smoke['confidence']:.3f})"
        + (without if tried and canary.minutes else ""),
    )
    claim.save()


def _withdraw(rollouts: Rollouts, current: Served, model: Served, why: str) -> None:
    """Give the model before all the traffic."""
    try:
        rollouts.withdraw(current, model)
    except Overruled:
        raise
    except VisionloopError as second:
        raise RolloutFailed(
            f"{why}. And the model before, {current.model_id}, does not come back: {second.what}",
            where=second.where,
            remedy=f"See the InferenceService, then: visionloop rollback {current.model_id}",
        ) from second


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
    from visionloop.lake.identity import is_sample
    from visionloop.lake.storage import StorageError, open_storage

    rows = lake.read("samples", columns=["sample_id", "uri"], where="split == 'holdout'")
    for row in sorted(rows.to_pylist(), key=lambda row: str(row["sample_id"]))[:20]:
        try:
            encoded = open_storage(row["uri"]).read(row["uri"])
        except StorageError:
            continue
        if is_sample(row["sample_id"], encoded):
            return str(row["sample_id"]), encoded
    return None


def _figures(rollouts: Rollouts, record: Rollout) -> dict[str, Any]:
    return {
        "inference_service": f"{rollouts.endpoint.namespace}/{rollouts.endpoint.name}",
        "mode": rollouts.mode.value,
        "smoke": record.smoke,
        "canary": record.judged,
    }
