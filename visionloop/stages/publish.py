"""Stage `publish`: put a model that passed its gate into service."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_sentence,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.stages.service_records import (
    ROLLED_BACK,
    mark_in_service,
    record_decision,
    set_states,
)
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake, Run
    from visionloop.serving.pointer import Pointer
    from visionloop.stages.kserve_publish import Outcome


BLOCKED = "blocked"
# How long a pointer that has to go back waits for whoever writes the lake: well within the 30 s
# that Kubernetes gives a pod between asking it to end and killing it.
_PUT_BACK_SECONDS = 8.0


class _Refused(Exception):
    """A model that passed its gate is not to be published; says why, and the outcome."""

    def __init__(self, outcome: str, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


class PublishOutputs(NamedTuple):
    """What `publish` returns.

    Attributes:
        lake_version: Lake version after the stage.
        published: Whether the candidate went into service.
        in_service: Id of the model in service now; empty when there is none.
    """

    lake_version: str
    published: bool
    in_service: str


@stage
def publish(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    model_id: str = "",
    model_uri: str = "",
    passed: bool = False,
    run_id: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> PublishOutputs:
    """Bring a model that passed its gate into service, and close the round.

    Without `serving.kserve` the pointer moves, and an endpoint that does not come up with the new
    model gets the old one back. With it the model is rolled out to the InferenceService: it must
    become ready, answer a known image as its file does, and pass its canary; otherwise the model
    before keeps, or gets back, all the traffic. A publish that was killed goes on where it was.

    The labels are judged first, those of this round with them, where a rule of the watch asks for
    doubted ones: it blocks this very publication, or lifts what they had blocked. While it is
    blocked, by that or by a watch, the model before stays, and the round ends with it. That is
    asked at the moment at which the pointer moves, under the writer's lock: a watch that blocks
    meanwhile comes either before or after it.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        model_id: The candidate.
        model_uri: Its serving bundle.
        passed: Whether it passed its gate.
        run_id: The run that publishes.
        metrics: Receives whether it was published, and what a canary measured.
        page: Receives a Markdown page.

    Raises:
        VisionloopError: The endpoint did not come up; the model before is in service again.
    """
    from visionloop.serving.pointer import pointer_uri, read_pointer
    from visionloop.stages.label_gate import judge_labels_first

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    place = pointer_uri(opened, loop.endpoint)
    rolls_out = passed and loop.serving.kserve is not None
    if passed:
        judge_labels_first(loop, opened, round_id=round_id, run_id=run_id)
    # A run shows that its round is alive; it locks the lake at its first write, after the waiting.
    with opened.run(
        stage="publish", round_id=round_id, run_id=run_id, base_version=lake_version
    ) as run:
        before = read_pointer(place)
        served = before.model_id if before else ""
        if passed and before is not None and served == model_id:
            served = before.previous  # a publish that was killed had moved the pointer already
        told, published, figures = False, passed, {}
        outcome = "published" if passed else "kept"
        reason = "did not pass its gate; the model in service stays"
        try:
            if rolls_out:
                found = _roll_out(
                    config, loop, opened, model_id, model_uri, run.round_id, run.run_id
                )
                published, reason, figures = found.published, found.reason, found.figures
                outcome = "published" if published else BLOCKED if found.blocked else ROLLED_BACK
                # What a publish found out that ran before stands in its row.
                told = not found.changed and _is_recorded(run, model_id)
            elif passed:
                seconds = move_pointer(
                    loop,
                    opened,
                    model_id,
                    model_uri,
                    demand=lambda _: _demand_free(opened, model_id),
                )
                reason = f"passed its gate; {_moved(loop, seconds)}"
        except _Refused as refused:
            published, outcome = False, refused.outcome
            reason = f"{refused}; it passed its gate"
        inputs = {"before": served, "url": loop.serving.url, **figures}
        if not told:
            record_decision(run, "publish", model_id, outcome, reason, inputs)
        run.set_round(
            state="done",
            outcome="published" if published else "kept",
            counts={"model_id": model_id, "published": published},
        )
        # Read once the lake is this run's alone: a rollback by hand may have moved it again.
        pointer = read_pointer(place)
        in_service = pointer.model_id if pointer else ""
        if in_service == model_id and published:
            mark_in_service(run, model_id)
        elif passed and in_service != model_id and outcome != BLOCKED:
            set_states(run, {model_id: ROLLED_BACK})
        version = run.commit(outputs={"in_service": in_service})
    if rolls_out:
        from visionloop.stages.kserve_publish import forget

        forget(loop, opened, model_id)
    rows = [
        ["candidate", f"`{model_id}`"],
        ["decision", markdown_sentence(reason)],
        ["in service before", f"`{served}`" if served else "none"],
        ["in service now", f"`{in_service}`" if in_service else "none"],
        *_told(loop, figures),
    ]
    log_metrics(metrics, {"published": published, "blocked": outcome == BLOCKED, **figures})
    write_page(page, f"# Publish\n\n{markdown_table(['', ''], rows)}\n")
    return PublishOutputs(version, published, in_service)


def _roll_out(
    config: str,
    loop: LoopConfig,
    lake: Lake,
    model_id: str,
    model_uri: str,
    round_id: str,
    run_id: str,
) -> Outcome:
    from visionloop.lake.lock import writer_lock
    from visionloop.serving.inference_service.endpoint import Served
    from visionloop.serving.inference_service.record import read_record, record_uri
    from visionloop.serving.pointer import pointer_uri, read_pointer
    from visionloop.stages.harvest import harvest
    from visionloop.stages.kserve_publish import roll_out

    def bring_in() -> None:
        harvest(config=config, lake=lake.uri, round_id=round_id, run_id=run_id)

    def blocked() -> str:
        return _refusal(lake, model_id)[1]

    pointer = read_pointer(pointer_uri(lake, loop.endpoint))
    record = read_record(record_uri(lake, loop.endpoint))
    # A trial that was killed gives its traffic back first: it is blocked within.
    under_way = pointer is not None and record is not None and record.model_id == model_id
    if not under_way and (pointer is None or pointer.model_id != model_id):
        # Behind a watch that is writing: it may block.
        with writer_lock(lake.catalog_uri, lake.loop):
            _demand_free(lake, model_id)
    return roll_out(loop, lake, Served(model_id, model_uri), harvest=bring_in, blocked=blocked)


def _refusal(lake: Lake, model_id: str) -> tuple[str, str]:
    """Return why a model that passed its gate is not to be published, and the outcome; or nothing.

    Read at the newest version: what stood when the stage began is of no concern.
    """
    from visionloop.stages.watch_service import acts_that_stand

    acts = acts_that_stand(lake)
    if acts.blocked:
        return BLOCKED, acts.blocked
    if back := acts.rolled_back.get(model_id):
        why = (
            f"it was rolled back at {back.at:%Y-%m-%d %H:%M} UTC, and only a person puts it back "
            f"(visionloop rollback {model_id})"
        )
        return "kept", why
    return "", ""


def _demand_free(lake: Lake, model_id: str) -> None:
    """Refuse a model while publication is blocked, and one that was rolled back.

    Raises:
        _Refused: It is so.
    """
    outcome, why = _refusal(lake, model_id)
    if why:
        raise _Refused(outcome, why)


def _is_recorded(run: Run, model_id: str) -> bool:
    rows = run.read("decisions", where=f"round_id == '{run.round_id}'").to_pylist()
    return any(
        (row["decision"], row["subject"], row["outcome"]) == ("publish", model_id, "published")
        for row in rows
    )


def _told(loop: LoopConfig, figures: dict[str, Any]) -> list[list[str]]:
    """Rows of the page about the endpoint and what it answered."""
    if not figures:
        return [["endpoint", loop.serving.url or "follows the pointer"]]
    rows = [["endpoint", f"InferenceService {figures['inference_service']}, {figures['mode']}"]]
    if smoke := figures["smoke"]:
        rows.append(
            [
                "known image",
                f"{smoke['told_as']}: {smoke['label']} ({smoke['confidence']:.3f}), within "
                f"{smoke['difference']:.1g} of the model's file",
            ]
        )
    if canary := figures["canary"]:
        for who in ("candidate", "current"):
            counted, sure = canary[who], canary["confidence"]
            mean = "—" if sure[who] is None else f"{sure[who]:.3f}"
            rows.append(
                [
                    f"canary, {who}",
                    f"{counted['requests']} requests, {counted['errors']} server errors, mean "
                    f"confidence {mean} of {sure['n_' + who]} answers",
                ]
            )
        rows.append(["canary", f"{canary['percent']}% of the traffic, {canary['seconds']:g} s"])
    return rows


def _moved(loop: LoopConfig, seconds: float) -> str:
    if not loop.serving.url:
        return "the pointer names it, and no endpoint is configured that would be waited for"
    return f"in service {seconds:.1f} s after the pointer moved"


def move_pointer(
    loop: LoopConfig,
    lake: Lake,
    model_id: str,
    model_uri: str,
    *,
    demand: Callable[[Pointer | None], None],
) -> float:
    """Move the pointer to a model, and wait until the endpoint serves it, where there is one.

    The pointer is read and written under the writer's lock: of a publish and a rollback at once one
    comes first, and the other sees what it did. Nothing is locked while the endpoint comes up.

    Args:
        loop: The configuration.
        lake: The lake; no run of this process may have begun to write.
        model_id: The model.
        model_uri: Its serving bundle.
        demand: Asked under the lock before the pointer moves, with the pointer as it is; raises
            where it must not move.

    Returns:
        Seconds waited.

    Raises:
        VisionloopError: The endpoint did not come up with it; the pointer is back where it was,
            unless somebody else has moved it meanwhile.
    """
    from visionloop.failures import explain
    from visionloop.lake.lock import writer_lock
    from visionloop.progress import log, progress
    from visionloop.serving.endpoint import wait_for_model
    from visionloop.serving.pointer import (
        Pointer,
        delete_pointer,
        pointer_uri,
        read_pointer,
        write_pointer,
    )

    place = pointer_uri(lake, loop.endpoint)
    with writer_lock(lake.catalog_uri, lake.loop):
        before = read_pointer(place)
        if before is None or before.model_id != model_id:
            demand(before)
            moved = Pointer(
                model_id,
                model_uri,
                datetime.now(UTC).isoformat(),
                previous=before.model_id if before else "",
                previous_uri=before.model_uri if before else "",
            )
            write_pointer(place, moved)
        else:
            # One that was killed had moved it already.
            moved, before = before, before.before()
    if not loop.serving.url:
        return 0.0
    try:
        with progress("publish", total=1, unit="endpoints") as bar:
            waited = wait_for_model(
                loop.serving.url,
                loop.endpoint,
                model_id,
                timeout=loop.serving.timeout_s,
                on_wait=lambda so_far: bar.note(f"waiting for it to come up, {so_far:.0f} s"),
            )
            bar.advance()
            return waited
    except BaseException:  # an interrupt too must not leave a model in service that nobody saw up
        with ExitStack() as held:
            try:
                held.enter_context(
                    writer_lock(lake.catalog_uri, lake.loop, timeout=_PUT_BACK_SECONDS)
                )
            except BaseException as problem:
                # Nor may a lake that is busy or gone, or a second interrupt while it is waited for;
                # what is raised is why the endpoint failed.
                why = explain(problem).what
                log(f"the pointer goes back without the writer's lock: {why}", level="warning")
            if read_pointer(place) != moved:
                pass  # somebody else has put another model into service since
            elif before is None:
                delete_pointer(place)
            else:
                write_pointer(place, before)
        raise
