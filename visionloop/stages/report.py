"""Stage `report`: the health of all stages on one page, also of a run that failed."""

from __future__ import annotations

from typing import NamedTuple

from visionloop.stages.artifacts import Artifact, MetricsArtifact, log_metrics, write_page
from visionloop.stages.opening import open_stage
from visionloop.task import stage


class ReportOutputs(NamedTuple):
    """What `report` returns.

    Attributes:
        n_rounds: Rounds that the report covers.
        verdict: ``healthy``, ``look``, ``act``, ``cannot tell`` or ``nothing yet``.
    """

    n_rounds: int
    verdict: str


@stage
def report(
    *,
    config: str,
    lake: str = "",
    round_id: str = "",
    run_id: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> ReportOutputs:
    """Write the report over all rounds, to the page and to ``reports/LOOP.html`` in the lake.

    It reads the newest version and no single round, so it works on an empty lake, beside a round
    that waits for labels, and after a stage that failed.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        round_id: For the record; every round is covered.
        run_id: The run that ends: a round that it did not finish is let go of, so that the next
            run need not wait for its lease.
        metrics: Receives the numbers of `visionloop.monitoring.report.summary.numbers`.
        page: Receives the page as HTML.
    """
    from visionloop.monitoring.report.build import read_planted
    from visionloop.monitoring.report.load import load_report
    from visionloop.monitoring.report.page import render
    from visionloop.monitoring.report.summary import numbers, summary
    from visionloop.monitoring.report_place import report_uri

    loop, opened = open_stage(config, lake)
    data = load_report(opened, planted=read_planted(opened), thresholds=loop.monitoring)
    html = render(data)
    write_page(page, html)
    log_metrics(metrics, numbers(summary(data)))
    if opened.exists():
        opened.storage.write(report_uri(opened), html.encode())
        if run_id:
            # The last task of a run, also of one that failed: the next run need not wait.
            opened.rounds.release(run_id)
    return ReportOutputs(len(data.rounds), data.verdict.state)
