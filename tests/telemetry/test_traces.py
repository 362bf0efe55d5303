"""A round is one trace, whichever processes its stages ran in; a collector may be down."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.monitoring.notifying.receiving import flag, write
from tests.servers import answering, free_port
from visionloop import environment, telemetry
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor
from visionloop.stages.plan_selection import plan_selection
from visionloop.stages.report import report

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Receive spans over OTLP/HTTP."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            assert self.path == "/v1/traces"
            for resource in request.resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                assert named["service.name"] == "visionloop"
                for scope in resource.scope_spans:
                    found.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}")
        yield found


@pytest.fixture
def config(tmp_path: Path) -> str:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(4):
        Image.new("RGB", (32, 32), (i * 60, 0, 0)).save(images / f"{i}.png")
    loop = {"lake": str(tmp_path / "lake"), "name": "traced", "sources": [{"uri": str(images)}]}
    return json.dumps(loop)


def attributes(span: Any) -> dict[str, Any]:
    return {
        one.key.removeprefix("visionloop."): getattr(one.value, one.value.WhichOneof("value"))
        for one in span.attributes
    }


def test_the_stages_of_a_round_share_a_trace_and_say_which_round_they_worked_on(
    spans: list[Any], config: str
) -> None:
    opened = ingest(config=config, run_id="run-1", open_round=True)
    monitor(config=config, round_id=opened.round_id)
    plan_selection(config=config)  # no round is handed to it
    report(config=config)
    assert [span.name for span in spans] == ["ingest", "monitor", "plan_selection", "report"]
    assert len({span.trace_id for span in spans}) == len({span.parent_span_id for span in spans})
    assert len({span.trace_id for span in spans}) == 1
    assert len({span.span_id for span in spans}) == 4
    for span in spans:
        told = attributes(span)
        assert (told["round_id"], told["run_id"], told["loop"]) == ("0000", "run-1", "traced")
        assert told["stage"] == span.name
        assert span.end_time_unix_nano >= span.start_time_unix_nano > 1e18
    assert attributes(spans[0])["n_files"] == 4
    assert attributes(spans[0])["lake_version"] == opened.lake_version


def test_a_report_after_the_round_is_part_of_it_and_closes_its_trace(
    spans: list[Any], config: str, tmp_path: Path
) -> None:
    ingest(config=config, run_id="run-1", open_round=True)
    lake = Lake.open(str(tmp_path / "lake"), loop="traced")
    with lake.run(stage="publish") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    report(config=config)
    first, last, whole = spans
    assert (last.name, whole.name) == ("report", "round 0")
    assert attributes(last)["round_id"] == "0000"
    assert first.trace_id == last.trace_id == whole.trace_id
    assert first.parent_span_id == last.parent_span_id == whole.span_id
    assert not whole.parent_span_id
    assert whole.start_time_unix_nano <= last.start_time_unix_nano
    assert attributes(whole)["outcome"] == "kept"
    report(config=config)  # of a part that failed before it wrote anything
    again = spans.pop()
    assert spans.pop().name == "report"
    assert again.end_time_unix_nano == whole.end_time_unix_nano
    write(lake, "flags", flag("unreadable", "x"), round_id="0001")  # a harvest's, weeks later
    report(config=config, run_id="harvest-9")
    assert [span.name for span in spans] == ["ingest", "report", "round 0", "report"]


def test_rounds_loops_and_lakes_have_traces_of_their_own() -> None:
    ids = {telemetry.trace_ids(*of) for of in (("a", "l", "0"), ("a", "l", "1"), ("a", "m", "0"))}
    assert len(ids) == 3
    assert telemetry.trace_ids("a", "l", "0") in ids


def test_a_stage_that_fails_leaves_a_span_with_its_error_and_no_secret(
    spans: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", "secret-in-a-path")
    gone = {"lake": str(tmp_path / "lake"), "sources": [{"uri": "/secret-in-a-path"}]}
    with pytest.raises(InputError):
        ingest(config=json.dumps(gone))
    [span] = spans
    assert span.status.code == 2 and "***" in span.status.message
    [event] = span.events
    told = {one.key: one.value.string_value for one in event.attributes}
    assert told["exception.type"] == "InputError" and "secret-in" not in str(span)


@pytest.mark.parametrize("silent", [True, False])
def test_a_collector_that_is_down_or_silent_neither_fails_nor_holds_up_a_stage(
    silent: bool, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hangs(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(3)

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    with answering(Hangs) as address:
        url = f"http://{address}" if silent else f"http://127.0.0.1:{free_port()}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        assert ingest(config=config).n_files == 4
    said = capsys.readouterr().err
    assert said.count("its trace was not sent") == 1 and "Traceback" not in said


@pytest.mark.parametrize(
    ("given", "seconds"), [("", 2.0), ("5", 5.0), ("1500", 1.5), ("60", 10.0), ("soon", 2.0)]
)
def test_a_timeout_is_taken_in_the_standards_unit_and_in_the_sdks_and_is_bounded(
    given: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", given)
    assert environment.trace_timeout() == seconds


def test_nothing_is_imported_where_no_collector_is_named(config: str) -> None:
    program = (
        "import sys\n"
        "from visionloop.stages.ingest import ingest\n"
        f"ingest(config={config!r})\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
        "assert 'visionloop.monitoring.notifying' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
