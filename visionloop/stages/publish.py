"""Stage `publish`: put a model that passed its gate into service."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.stages.artifacts import Artifact, markdown_table, write_page
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Run


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
    page: Artifact | None = None,
) -> PublishOutputs:
    """Move the pointer to the model in service, wait for the endpoint, and close the round.

    A model that did not pass its gate is not published: the one in service stays. An endpoint that
    does not come up with the new model gets the old one back.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        model_id: The candidate.
        model_uri: Its serving bundle.
        passed: Whether it passed its gate.
        run_id: The run that publishes.
        page: Receives a Markdown page.

    Raises:
        VisionloopError: The endpoint did not come up; the pointer is back where it was.
    """
    from visionloop.serving.pointer import pointer_uri, read_pointer

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    place = pointer_uri(opened, loop.endpoint)
    with opened.run(
        stage="publish", round_id=round_id, run_id=run_id, base_version=lake_version
    ) as run:
        before = read_pointer(place)
        served = before.model_id if before else ""
        if passed and before is not None and served == model_id:
            served = before.previous  # a publish that was killed had moved the pointer already
        if passed:
            seconds = _move(loop, place, model_id, model_uri)
            reason = f"passed its gate; in service {seconds:.1f} s after the pointer moved"
            _mark_in_service(run, model_id)
        else:
            reason = "did not pass its gate; the model in service stays"
        _record(run, model_id, passed, reason, {"before": served, "url": loop.serving.url})
        run.set_round(
            state="done",
            outcome="published" if passed else "kept",
            counts={"model_id": model_id, "published": passed},
        )
        in_service = model_id if passed else (before.model_id if before else "")
        version = run.commit(outputs={"in_service": in_service})
    rows = [
        ["candidate", f"`{model_id}`"],
        ["decision", reason],
        ["in service before", f"`{served}`" if served else "none"],
        ["in service now", f"`{in_service}`" if in_service else "none"],
        ["endpoint", loop.serving.url or "follows the pointer"],
    ]
    write_page(page, f"# Publish\n\n{markdown_table(['', ''], rows)}\n")
    return PublishOutputs(version, passed, in_service)


def _move(loop: LoopConfig, place: str, model_id: str, model_uri: str) -> float:
    from visionloop.progress import progress
    from visionloop.serving.endpoint import wait_for_model
    from visionloop.serving.pointer import Pointer, delete_pointer, read_pointer, write_pointer

    before = read_pointer(place)
    if before is None or before.model_id != model_id:
        now = datetime.now(UTC).isoformat()
        moved = Pointer(
            model_id,
            model_uri,
            now,
            previous=before.model_id if before else "",
            previous_uri=before.model_uri if before else "",
        )
        write_pointer(place, moved)
    else:
        before = before.before()  # a publish that was killed had moved it already
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
        if before is None:
            delete_pointer(place)
        else:
            write_pointer(place, before)
        raise


def _mark_in_service(run: Run, model_id: str) -> None:
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    rows = run.read("experiments", where="arm == 'loop'").to_pylist()
    changed: list[dict[str, Any]] = []
    for row in rows:
        if row["model_id"] == model_id and row["state"] != "in_service":
            changed.append(row | {"state": "in_service"})
        elif row["model_id"] != model_id and row["state"] == "in_service":
            changed.append(row | {"state": "retired"})
    for row in changed:
        run.replace(
            "experiments",
            pa.Table.from_pylist([row], schema=arrow_schema("experiments")),
            f"model_id == '{row['model_id']}'",
        )


def _record(run: Run, model_id: str, passed: bool, reason: str, inputs: dict[str, Any]) -> None:
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    row = {
        "decision": "publish",
        "subject": model_id,
        "outcome": "published" if passed else "kept",
        "reason": reason,
        "inputs": json.dumps(inputs),
        "decided_at": datetime.now(UTC),
    }
    run.replace(
        "decisions",
        pa.Table.from_pylist([row], schema=arrow_schema("decisions")),
        f"round_id == '{run.round_id}' and decision == 'publish'",
    )
