"""What is left to choose from is one number, wherever it is told."""

from __future__ import annotations

from tests.monitoring.artifacts import Metrics, sourceless
from tests.selection.small_lake import put
from visionloop.lake import Lake
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.metrics.families import families
from visionloop.monitoring.metrics.health import read_health
from visionloop.stages.monitor import monitor


def told(lake: Lake) -> list[float]:
    """Return the samples of the gauge `visionloop_pool_samples`."""
    health = read_health(lake, MonitoringConfig())
    found = {one.name: one.samples for one in families({"test": health})}
    return [one.value for one in found["visionloop_pool_samples"]]


def test_prometheus_is_told_the_number_of_the_monitors_page_and_metrics(lake: Lake) -> None:
    assert told(lake) == [], "no monitor has counted"
    put(lake, "samples", [{"sample_id": f"s{i}", "split": "pool"} for i in range(10)])
    with lake.run(stage="select", round_id="0000") as run:
        run.commit(outputs={"pool": 10, "eligible": 9, "removed": {"flagged": 1}})
    put(lake, "label_requests", [{"sample_id": "s0"}, {"sample_id": "s1"}])
    metrics = Metrics()
    monitor(config=sourceless(lake, ["a", "b"]), round_id="0000", metrics=metrics)
    assert told(lake) == [metrics.values["n_left_to_select"]] == [8]
    with lake.run(stage="select", round_id="0000") as run:
        run.commit(outputs={"pool": 10, "eligible": 8, "removed": {"flagged": 2}})
    assert told(lake) == [8], "a selection's own count is another number"
