"""What a model that may serve answered on the holdout."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.lake.run import Run
    from visionloop.training.evaluation import Measured


def keep_predictions(run: Run, own: Measured) -> None:
    """Keep what a model that may serve answered on the holdout, in the place of what is held of it.

    What it says in production is compared with that from its first request on, and not only after
    the next round has predicted.

    Args:
        run: The run of `evaluate`.
        own: What was measured of the model.
    """
    if own.probabilities is None:
        return
    from pyiceberg.expressions import And, EqualTo, In

    from visionloop.inference.predicted_rows import predicted_rows

    model_id, sample_ids = own.row["model_id"], list(own.sample_ids)
    rows = predicted_rows(
        sample_ids, own.probabilities, model_id, list(own.row["classes"]), datetime.now(UTC)
    )
    mine = And(EqualTo(term="model_id", value=model_id), In(term="sample_id", literals=sample_ids))
    run.replace("predictions", rows, mine)
