"""The generated files of the repository say what the code says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.components import registry as components
from visionloop.lake.schemas import TABLES
from visionloop.pipelines import registry as pipelines
from visionloop.pipelines.generated import GOLDEN, PLACEMENTS, generate, main, stale
from visionloop.pipelines.reference import COMMAND, component_page, placements, relations

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate(folder)
    return folder


def section(page: str, title: str) -> str:
    """The text under a heading, up to the next one; empty where there is none."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a section's tables, by what stands in their first cell."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_generated_file_of_the_repository_is_fresh() -> None:
    found = stale(ROOT)
    assert not found, f"stale: {', '.join(found)}. Run `{COMMAND}` and commit what it changes."


def test_the_command_is_a_target_of_the_makefile() -> None:
    program, target = COMMAND.split()
    assert program == "make"
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = text.partition(f"\n{target}: ")[2].split("\n\n")[0]
    assert "-m visionloop.pipelines.generated" in recipe


def test_there_is_a_file_for_every_pipeline_and_component(fresh: Path) -> None:
    made = {str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file()}
    assert made == {
        "docs/components.md",
        "docs/configuration.md",
        "docs/loop.schema.json",
        *(f"pipelines/{name}.yaml" for name in pipelines.NAMES),
        *(f"{GOLDEN}/{kind}/{name}.yaml" for kind in PLACEMENTS for name in pipelines.NAMES),
        *(f"components/{name}/component.yaml" for name in components.NAMES),
        *(f"components/{name}/README.md" for name in components.NAMES),
    }


def test_what_differs_is_missing_or_left_over_is_stale(fresh: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fresh, tmp_path / "copy"))
    assert stale(copy) == []
    page = copy / "components" / "select" / "README.md"
    page.write_text(page.read_text(encoding="utf-8") + "\nby hand\n", encoding="utf-8")
    (copy / "pipelines" / "round.yaml").unlink()
    shutil.copytree(copy / "components" / "train", copy / "components" / "forgotten")
    shutil.copy(copy / "pipelines" / "intake.yaml", copy / "pipelines" / "gone.yaml")
    assert stale(copy) == [
        "components/forgotten/README.md",
        "components/forgotten/component.yaml",
        "components/select/README.md",
        "pipelines/gone.yaml",
        "pipelines/round.yaml",
    ]


def test_a_patch_release_of_kfp_makes_nothing_stale(fresh: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fresh, tmp_path / "copy"))
    path = copy / "pipelines" / "round.yaml"
    text = path.read_text(encoding="utf-8")
    assert "\nsdkVersion: kfp-" in text
    path.write_text(re.sub(r"(?m)^sdkVersion: .*$", "sdkVersion: kfp-2.17.99", text), "utf-8")
    assert stale(copy) == []


def test_checking_says_the_command_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("visionloop.pipelines.generated.stale", lambda: ["pipelines/round.yaml"])
    assert main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "pipelines/round.yaml" in said and COMMAND in said


def test_an_image_of_ones_own_does_not_reach_the_repository(tmp_path: Path, fresh: Path) -> None:
    program = (
        "import sys; from visionloop.pipelines.generated import generate; generate(sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "VISIONLOOP_IMAGE": "registry.example/mine:1", "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
    )
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (fresh / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("name", components.NAMES)
def test_a_page_lists_each_input_and_output_once_and_where_it_belongs(name: str) -> None:
    page = component_page(name)
    spec = components.load(name).component_spec
    inputs, outputs = rows(section(page, "Inputs")), rows(section(page, "Outputs"))
    left = rows(section(page, "Artifacts left"))
    assert set(inputs) == set(spec.inputs or {})
    assert {**outputs, **left}.keys() == set(spec.outputs or {})
    # Outputs listed as inputs: the mistake that pages made from a signature alone make.
    assert not set(inputs) & set(left) and not set(outputs) & set(left)
    for key, cells in {**inputs, **outputs, **left}.items():
        assert all(cells), f"{name}: {key} has an empty cell"
    for key, value in (spec.inputs or {}).items():
        if len(inputs[key]) == 3:
            assert (inputs[key][1] == "needed") == (not value.optional), key


@pytest.mark.parametrize("name", components.NAMES)
def test_a_page_says_where_the_component_runs_and_what_it_touches(name: str) -> None:
    touched = relations(name)
    assert touched.reads or touched.reads_besides
    assert touched.writes or touched.writes_besides
    known = {*TABLES, "embeddings"}
    assert set(touched.reads) <= known and set(touched.writes) <= known
    named = rows(section(component_page(name), "Where it runs"))
    assert set(named) == {one.pipeline for one in placements(name)} != set()
    # A stage that is skipped must not have read what the key of the cache does not hold.
    assert {one.cached for one in placements(name)} in ({True}, {False})


def test_links_of_the_index_lead_somewhere() -> None:
    page = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", page)
    assert len(links) > len(components.NAMES)
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
