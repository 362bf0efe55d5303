"""What the tasks of a watch and its round leave for the Kubeflow Pipelines UI, and touch."""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from visionloop.components import registry
from visionloop.demo.world import World
from visionloop.lake import Lake
from visionloop.pipelines.reference import relations
from visionloop.runner.local import run_pipeline
from visionloop.runner.result import RunResult
from visionloop.stages.artifacts import MARKDOWN_LIMIT, log_confusion, log_metrics, write_page

HERE = Path(__file__).resolve().parent
N_FILES = 120
# What the UI fetches as a whole and puts into a frame.
HTML_LIMIT = 10_000_000
PARAMETERS = {"String", "Integer", "Float", "Boolean", "typing.List[str]"}
# What takes long to import, and the stages whose work is done by it; a round's own small network
# needs no torchvision. Every stage opens the lake, and with it pyiceberg.
HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "kserve", "kubernetes", "jinja2"}
HEAVY |= {"sklearn", "scipy", "cv2", "pandas", "label_studio_sdk"}
MAY_LOAD = {
    "infer": {"onnxruntime"},
    "train": {"torch", "onnx"},
    # Exact tests and intervals.
    "monitor": {"scipy"},
    "evaluate": {"onnxruntime", "scipy"},
    "export": {"onnxruntime", "onnx"},
    "report": {"jinja2", "pandas", "scipy", "sklearn"},
}
# Opening a stage reads the round; that is said once, on every page.
READ_BY_ALL = {"rounds", "stage_runs"}


@dataclass(frozen=True)
class Turn:
    """One round, as it lies on the disk."""

    result: RunResult
    folder: Path
    lake: Lake
    reads: dict[str, set[str]]
    modules: dict[str, set[str]]


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turn]:
    """Watch over a few digits, some of them broken, until it has run a round: every component."""
    folder = tmp_path_factory.mktemp("turn")
    world = World(folder / "world")
    world.deliver(0)
    files = sorted(path for path in world.bucket.rglob("*") if path.suffix in (".png", ".jpg"))
    for path in files[::2][N_FILES:] + files[1::2]:
        path.unlink()
        path.with_name(path.name + ".json").unlink(missing_ok=True)
    settings = {
        "name": "turn",
        "lake": str(folder / "lake"),
        "classes": [str(digit) for digit in range(10)],
        "sources": [{"uri": str(world.bucket), "metadata": "sidecar"}],
        "selection": {"n_samples": 12, "strategy": "diversity"},
        "labeling": {"provider": "oracle", "labels": str(folder / "world" / "truth.csv")},
        "training": {"epochs": 1, "min_updates": 5},
        "watch": {"min_new_samples": 10},
        # So few that there are shards; none would be listed by default.
        "cluster": {"inline_samples": 5, "select_shard_size": 100},
    }
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(HERE / "spying"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        patch.setenv("VISIONLOOP_TEST_NOTES", str(folder))
        result = run_pipeline("watch", {"config": json.dumps(settings)}, folder, progress=False)
    assert result.succeeded, f"{result.error}\n{result.traceback}"
    lake = Lake.open(str(folder / "lake"), loop="turn")
    yield Turn(result, Path(result.folder), lake, notes(folder, "reads"), notes(folder, "modules"))


def notes(folder: Path, name: str) -> dict[str, set[str]]:
    """What the tasks did, by stage."""
    noted = defaultdict(set)
    for line in (folder / name).read_text(encoding="utf-8").splitlines():
        stage, *told = line.split(" ")
        noted[stage] |= {"embeddings" if one.startswith("embeddings_") else one for one in told}
    return noted


def declared(name: str) -> dict[str, str]:
    """The artifacts that a component says it leaves: their types by name."""
    outputs = registry.load(name).component_spec.outputs or {}
    return {
        key: value.type.split("@")[0].removeprefix("system.")
        for key, value in outputs.items()
        if value.type not in PARAMETERS
    }


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} in a task's output: the server refuses it")


def left(turn: Turn, name: str) -> dict[str, dict[str, Any]]:
    """The artifacts that a task left: uri and metadata by name."""
    # Harvesting is done twice, by the watch and by its round: into one folder.
    # A task in a loop lies in a folder of its iteration; each leaves the same.
    # A task that several pipelines have gets a number in the one that they are parts of.
    mine = re.compile(name.replace("_", "-") + r"(-\d+)?")
    each = turn.folder.rglob("executor_output.json")
    found, *_ = (path for path in each if mine.fullmatch(path.parent.name))
    told = json.loads(found.read_text(encoding="utf-8"), parse_constant=refuse)
    artifacts = {}
    for key, value in told.get("artifacts", {}).items():
        [one] = value["artifacts"]
        artifacts[key] = {**one, "path": found.parent / key}
    return artifacts


def of_type(turn: Turn, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Every artifact of a type, with the name of its component."""
    return [
        (name, left(turn, name)[key])
        for name in registry.NAMES
        for key, its_kind in declared(name).items()
        if its_kind == kind
    ]


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, (int, float)):
        yield value


pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.NAMES)
def test_a_task_leaves_the_artifacts_that_it_declares_all_finite(turn: Turn, name: str) -> None:
    artifacts = left(turn, name)
    assert set(artifacts) == set(declared(name))
    for key, one in artifacts.items():
        assert all(math.isfinite(number) for number in numbers(one.get("metadata", {}))), key


def test_metrics_are_plain_numbers_with_names_that_a_column_can_carry(turn: Turn) -> None:
    found = of_type(turn, "Metrics")
    assert len(found) >= 8
    for name, one in found:
        assert one["metadata"], f"{name} leaves no number"
        for key, value in one["metadata"].items():
            assert type(value) in (int, float), f"{name}: {key}"
            assert key.strip() == key != "" and "\n" not in key
        assert not one["path"].exists(), "the numbers are the artifact; it has no file"


def test_confusion_matrices_are_square_and_add_up_and_a_slices_says_which_it_is(turn: Turn) -> None:
    (name, overall), *slices = of_type(turn, "ClassificationMetrics")
    n = left(turn, name)["metrics"]["metadata"]["n"]
    assert len(slices) == 6 and n > 0
    used = [one for _, one in slices if one["metadata"]]
    # A curve's first threshold is infinite, which the server refuses: none is left.
    assert set(overall["metadata"]) == {"confusionMatrix"}
    assert all(set(one["metadata"]) == {"confusionMatrix", "display_name"} for one in used)
    for one in (overall, *used):
        matrix = one["metadata"]["confusionMatrix"]
        classes = [entry["displayName"] for entry in matrix["annotationSpecs"]]
        rows = [row["row"] for row in matrix["rows"]]
        assert classes == [str(digit) for digit in range(10)]
        assert [len(row) for row in rows] == [len(classes)] * len(classes)
        assert all(count >= 0 and count == int(count) for row in rows for count in row)
        total = sum(map(sum, rows))
        assert total == n if one is overall else 0 < total < n


def test_markdown_is_short_enough_and_draws_as_it_was_meant(turn: Turn) -> None:
    found = of_type(turn, "Markdown")
    assert len(found) >= 7
    for name, one in found:
        text = one["path"].read_text(encoding="utf-8")
        assert text.startswith("# ") and len(text) < MARKDOWN_LIMIT, name
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        assert not re.search(r"</?[a-zA-Z][^>]*>", prose), f"{name}: the UI shows no raw HTML"
        assert "nan" not in prose.lower().split() and "inf" not in prose.lower().split(), name
        for table in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
            widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, f"{name}: a row of another width in\n{table}"


class Outside(HTMLParser):
    """Collects what a page would fetch, and what it would run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        for key, value in attrs:
            fetched = key in ("src", "srcset", "poster", "data", "action", "background") or (
                key.endswith("href") and tag != "a"
            )
            if fetched and value and not value.startswith(("data:", "#")):
                self.found.append(f"<{tag} {key}={value[:80]}>")
            if key == "href" and tag == "a" and not (value or "").startswith("#"):
                self.found.append(f"<a href={(value or '')[:80]}> leads out of a sandboxed frame")
            if key == "style" and value:
                self.found += re.findall(r"url\((?!['\"]?(?:data:|#))[^)]*\)", value)


def outside(html: str) -> list[str]:
    """What a page needs besides itself."""
    parser = Outside()
    parser.feed(html)
    style = "\n".join(re.findall(r"<style[^>]*>(.*?)</style>", html, flags=re.DOTALL))
    script = "\n".join(re.findall(r"<script[^>]*>(.*?)</script>", html, flags=re.DOTALL))
    return [
        *parser.found,
        *re.findall(r"@import[^;]*|url\((?!['\"]?(?:data:|#))[^)]*\)", style),
        *re.findall(r"fetch\(|XMLHttpRequest|import\(|localStorage|https?://[^\s\"']+", script),
    ]


def test_html_needs_nothing_but_itself(turn: Turn) -> None:
    [(_, one)] = of_type(turn, "HTML")
    html = one["path"].read_text(encoding="utf-8")
    assert html.lstrip().lower().startswith("<!doctype html>")
    assert len(html.encode()) < HTML_LIMIT
    assert outside(html) == []


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://example.org/a.png">',
        '<link rel="stylesheet" href="style.css">',
        '<script src="//cdn.example.org/x.js"></script>',
        "<style>body { background: url(paper.png) }</style>",
        "<script>fetch('data.json')</script>",
        '<a href="https://example.org">more</a>',
    ],
)
def test_a_page_that_needs_something_else_would_be_found(html: str) -> None:
    assert outside(html)


def test_datasets_and_models_are_what_their_metadata_says(turn: Turn) -> None:
    for name, one in of_type(turn, "Dataset"):
        table = pq.read_table(one["path"])
        assert table.num_rows == one["metadata"]["rows"], name
        assert ", ".join(table.column_names) == one["metadata"]["columns"], name
    for name, one in of_type(turn, "Model"):
        assert (one["path"] / "model.onnx").stat().st_size > 0, name
        assert one["metadata"]["model_id"], name


def test_a_stage_reads_the_tables_that_its_page_names_and_no_others(turn: Turn) -> None:
    assert set(turn.reads) == set(registry.NAMES)
    unnamed = {
        name: tables - set(relations(name).reads) - READ_BY_ALL
        for name, tables in turn.reads.items()
    }
    told = {name: sorted(tables) for name, tables in unnamed.items() if tables}
    assert not told, f"name in the docstrings of the components what they read: {told}"


def test_a_stage_writes_the_tables_that_its_page_names_and_no_others(turn: Turn) -> None:
    before: dict[str, Any] = {}
    written = defaultdict(set)
    for row in turn.lake.history().to_pylist():
        tables = json.loads(row["tables"])
        changed = {name for name, snapshot in tables.items() if before.get(name) != snapshot}
        written[row["stage"]] |= {
            "embeddings" if name.startswith("embeddings_") else name for name in changed
        }
        before = tables
    assert written.pop("open_round") == {"rounds"}
    # What publish asks of the labels first is a run of its own.
    written["publish"] |= written.pop("judge_labels", set())
    assert set(written) >= {"ingest", "infer", "monitor", "select", "train", "publish"}
    for name, tables in written.items():
        unnamed = tables - set(relations(name).writes)
        assert not unnamed, f"{name} writes {unnamed}: name them in its component's docstring"


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_stage_loads_nothing_heavy_that_it_does_not_need(turn: Turn, name: str) -> None:
    loaded = turn.modules[name]
    assert {"visionloop", "pyarrow"} <= loaded
    assert loaded & HEAVY <= MAY_LOAD.get(name, set())


def test_numbers_that_would_crash_a_task_never_reach_its_metrics() -> None:
    metrics = dsl.Metrics(name="metrics", uri="", metadata={})
    values = {"nan": np.nan, "infinity": math.inf, "text": "many", "none": None}
    log_metrics(metrics, {**values, "n": np.int64(3), "share": np.float32(0.5), "passed": True})
    assert metrics.metadata == {"n": 3.0, "share": 0.5, "passed": 1.0}
    assert {type(value) for value in metrics.metadata.values()} == {float}


def test_a_confusion_matrix_of_numpys_numbers_is_written_as_plain_ones() -> None:
    confusion = dsl.ClassificationMetrics(name="confusion", uri="", metadata={})
    log_confusion(confusion, ("a", "b"), np.array([[3, 1], [0, 2]]))  # type: ignore[arg-type]
    assert json.loads(json.dumps(confusion.metadata))["confusionMatrix"]["rows"] == [
        {"row": [3, 1]},
        {"row": [0, 2]},
    ]


def test_a_page_that_is_too_long_ends_at_a_line_and_says_so(tmp_path: Path) -> None:
    page = dsl.Markdown(name="page", uri=str(tmp_path / "page"), metadata={})
    row = "| " + "x" * 90 + " |\n"
    write_page(page, "# Long\n\n" + row * 10_000)
    text = (tmp_path / "page").read_text(encoding="utf-8")
    assert len(text) <= MARKDOWN_LIMIT
    *rows, last = text.rstrip().splitlines()
    assert "ends here" in last
    assert {line for line in rows if line.startswith("|")} == {row.rstrip()}
    html = "<!DOCTYPE html>\n" + row * 10_000
    write_page(page, html)
    assert (tmp_path / "page").read_text(encoding="utf-8") == html
