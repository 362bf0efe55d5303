"""The model in service, whether it finds objects, and so what counts as a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionloop.labeling.answers import DETECTION, latest_boxes, latest_labels
from visionloop.lake import parts

if TYPE_CHECKING:
    from visionloop.lake import Lake

Labels = dict[str, tuple[str, ...]]


def model_in_service(models: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the loop's model in service among rows of `experiments`, None on a cold start."""
    return max((row for row in models if row["state"] == "in_service"), key=age, default=None)


def age(model: Mapping[str, Any]) -> tuple[str, str]:
    """Return what orders models from the oldest to the newest."""
    return str(model["trained_at"]), str(model["model_id"])


def finds_objects(lake: Lake, model: Mapping[str, Any] | None, version: str) -> bool | None:
    """Return whether a model is a detector; None where it has predicted nothing.

    That it predicts is told by the whole lake, whatever samples are looked at. Earlier
    programs stored a list that is null as an empty one, so a detector is told by a box, or by rows
    with a list of boxes of which none has probabilities.

    Args:
        lake: The lake.
        model: Its row of `experiments`; None for no model.
        version: Lake version; empty for the newest.
    """
    if model is None:
        return None
    import pyarrow.compute as pc

    detector = None
    for batch in parts.batches(
        lake,
        "predictions",
        ["probabilities", "boxes"],
        f"model_id == '{model['model_id']}'",
        version,
    ):
        for found, answer in (("probabilities", False), ("boxes", True)):
            if (pc.max(pc.list_value_length(batch[found])).as_py() or 0) > 0:
                return answer
        if len(batch):
            detector = bool(detector) or batch["boxes"].null_count < len(batch)
    return detector


def is_about_objects(
    detector: bool | None, answers: Sequence[Mapping[str, Any]], task: str
) -> bool:
    """Return whether a sample is labelled once its objects are marked, not once it has a class.

    The model in service decides. Before there is one it is the loop's task; of a lake without a
    loop the labels themselves: where there are boxes, and no image has a class.

    Args:
        detector: What `finds_objects` says of the model in service.
        answers: Rows of the table `labels`.
        task: Task of the loop; empty without one.
    """
    if detector is not None:
        return detector
    if task:
        return task == DETECTION
    return not latest_labels(answers) and bool(latest_boxes(answers))


def labels_of(answers: Sequence[Mapping[str, Any]], *, objects: bool) -> Labels:
    """Return the classes of each labelled sample.

    Args:
        answers: Rows of the table `labels`.
        objects: See `is_about_objects`: an image has as many classes as objects, none included.
    """
    if objects:
        return {
            sample: tuple(str(box["label"]) for box in row["boxes"] if box["label"] is not None)
            for sample, row in latest_boxes(answers).items()
        }
    return {sample: (name,) for sample, name in latest_labels(answers).items()}
