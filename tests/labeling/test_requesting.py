"""What people are asked, in which order, and what they are shown; nothing is asked twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from tests.labeling.conftest import Asking
from tests.labeling.file_tool import PROVIDER
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.labeling.opening import open_provider
from visionloop.labeling.requests import answers_of

REPOSITORY = Path(__file__).parents[2]


def test_requests_are_ranked_and_say_why_and_holdout_and_random_picks_show_no_prediction(
    asking: Asking,
) -> None:
    assert asking.request().n_requested == 8
    rows = asking.lake.read("label_requests").sort_by("rank").to_pylist()
    order = [row["sample_id"][0] for row in rows]
    assert [letter for letter in order if letter not in "yz"] == list("abcdef")
    assert [row["rank"] for row in rows] == list(range(8))
    # The holdout is spread over the picks, so that a deadline cuts off as much of both.
    assert "y" in order[:4] and "z" in order[4:]
    held_out = [row["purpose"] == "holdout" for row in rows]
    assert held_out == [letter in "yz" for letter in order]
    assert [row["external_id"] for row in rows] == [f"t{i}" for i in range(8)]
    assert {row["provider"] for row in rows} == {"FileTool"}
    assert next(row["reason"] for row in rows if row["sample_id"][0] == "a") == (
        "Picked because the model is not confident of its best class (least confidence 0.90)."
    )
    # Nothing tells a random pick from the holdout.
    why = {row["sample_id"][0]: row["reason"] for row in rows}
    assert why["f"] == why["y"] == why["z"] != why["a"]
    shown = {sample[0]: task["shown"] for sample, task in asking.desk.tasks.items()}
    first = shown["a"]
    assert (first["label"], first["confidence"], first["model_id"]) == ("dog", 0.75, "m1")
    assert (first["width"], first["height"]) == (32, 24)
    assert first["uri"] == "file:///data/a.png"
    for letter in "fyz":
        assert shown[letter]["label"] is None and shown[letter]["model_id"] == ""


def test_what_several_people_answer_shows_none_of_them_a_prediction(asking: Asking) -> None:
    asking.request(trust={"overlap": 1.0, "annotators": 2})
    shown = [task["shown"] for task in asking.desk.tasks.values()]
    assert {one["purpose"] for one in shown} == {"training", "holdout"}
    assert {(one["answers"], one["label"], one["model_id"]) for one in shown} == {(2, None, "")}


def test_people_see_the_metadata_that_are_named_and_no_others(asking: Asking) -> None:
    with asking.lake.run(stage="ingest", round_id="0000") as run:
        more = {"camera": ["left", "right"], "patient": ["J. Doe", "M. Roe"]}
        ids = {"sample_id": ["b" * 64, "y" * 64], "raw": ["{}", "{}"]}
        run.append("metadata", pa.table(ids | more))
        run.commit()
    for wanted, near in (("camra", "camera"), ("raw", "")):
        with pytest.raises(InputError, match=f"no column `{wanted}`.*{near}") as caught:
            asking.request(show=[wanted])
        assert caught.value.where == "labeling.show" and "camera, patient" in caught.value.remedy
    asking.request(show=["camera"])
    shown = {sample[0]: task["shown"] for sample, task in asking.desk.tasks.items()}
    assert {letter: one["metadata"] for letter, one in shown.items() if one["metadata"]} == {
        "b": {"camera": "left"},
        "y": {"camera": "right"},
    }


def test_no_metadata_are_shown_unless_they_are_named(asking: Asking) -> None:
    with asking.lake.run(stage="ingest", round_id="0000") as run:
        told = {"sample_id": ["b" * 64], "raw": ["{}"], "folder": ["dogs"]}
        run.append("metadata", pa.table(told))
        run.commit()
    asking.request()
    assert all(not task["shown"]["metadata"] for task in asking.desk.tasks.values())


def test_asking_again_makes_no_task_twice_and_keeps_when_it_was_asked(asking: Asking) -> None:
    asking.request()
    before = asking.lake.read("label_requests").to_pylist()
    asking.request()
    assert asking.lake.read("label_requests").to_pylist() == before
    assert len(asking.desk.tasks) == 8


@pytest.mark.parametrize("when", ["in the middle of a push", "after a push"])
def test_a_kill_between_push_and_commit_leaves_no_request_twice_and_none_unknown(
    asking: Asking, when: str
) -> None:
    asking.desk.set(kill=when)
    code = (
        "import sys\nfrom visionloop.stages.request_labels import request_labels\n"
        "request_labels(config=sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, asking.config()]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr.decode()
    assert asking.lake.read("label_requests").num_rows == 0
    pushed = {sample: task["id"] for sample, task in asking.desk.tasks.items()}
    assert asking.request().n_requested == 8
    rows = asking.lake.read("label_requests").to_pylist()
    tasks = {sample: task["id"] for sample, task in asking.desk.tasks.items()}
    assert {row["sample_id"]: row["external_id"] for row in rows} == tasks
    assert len(set(tasks.values())) == 8
    assert pushed.items() <= tasks.items()


def test_a_tool_that_is_down_leaves_the_lake_as_it_was(asking: Asking) -> None:
    asking.desk.set(down=True)
    version = asking.lake.version()
    with pytest.raises(Exception, match="does not answer"):
        asking.request()
    assert asking.lake.version() == version


def test_relabels_are_asked_about_among_the_picks_and_show_nothing(asking: Asking) -> None:
    with asking.lake.run(stage="select", round_id="0000") as run:
        run.append("relabels", pa.table({"sample_id": ["g" * 64], "rank": [0], "label": ["cat"]}))
        run.commit()
    asking.request()
    rows = asking.lake.read("label_requests").to_pylist()
    purposes = {row["sample_id"][0]: row["purpose"] for row in rows}
    assert purposes == dict.fromkeys("abcdef", "training") | {
        "g": "relabel", "y": "holdout", "z": "holdout",
    }  # fmt: skip
    shown = asking.desk.tasks["g" * 64]["shown"]
    assert shown["label"] is None and "second opinion" in shown["reason"]


def test_which_samples_several_people_answer_is_drawn_by_the_sample_alone(asking: Asking) -> None:
    setting = asking.config(trust={"overlap": 0.3, "annotators": 3})
    config = load_config(setting)
    ids = [f"{number:064x}" for number in range(4000)]
    several = [sample for sample in ids if answers_of(config, sample) == 3]
    assert {answers_of(config, sample) for sample in ids} == {1, 3}
    assert 1100 < len(several) < 1300
    more = load_config(asking.config(trust={"overlap": 0.6, "annotators": 3}))
    assert all(answers_of(more, sample) == 3 for sample in several)


@pytest.mark.parametrize(
    ("labeling", "told"),
    [
        ({"provider": "csv", "trust": {"overlap": 0.3}}, "`csv` has one answer a sample"),
        (
            {"provider": "oracle", "labels": "folder", "trust": {"overlap": 0.3}},
            "`oracle` has one answer a sample",
        ),
        (
            {"provider": "oracle", "labels": "folder", "trust": {"relabel": "activelab"}},
            "answers the same again",
        ),
        ({"auto_labels": {"precision": 1}}, "less than 1"),
    ],
)
def test_what_a_configuration_cannot_get_is_refused(
    asking: Asking, labeling: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        load_config(asking.config(**labeling))


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        ("no_such_package.tool:Tool", r"no module `no_such_package`.*no_such_package.tool:Tool"),
        ("tests.labeling.no_such:Tool", r"no module `tests.labeling.no_such`"),
        ("tests.labeling.file_tool:FileTol", r"no class `FileTol` \(did you mean `FileTool`\?\)"),
        ("tests.labeling.file_tool:Desk", r"has no method `request`, `poll`, `collect`, `recall`"),
    ],
)
def test_a_provider_that_is_none_is_refused_by_name(
    asking: Asking, provider: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        open_provider(load_config(asking.config(provider=provider)), asking.lake)


def test_a_package_that_a_provider_lacks_names_the_extra(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.failures import explain

    (tmp_path / "a_tool.py").write_text("import label_studio_sdk.no_such_part\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # A package without a part, and gone when the test ends: others use the one that is installed.
    bare = ModuleType("label_studio_sdk")
    bare.__path__ = []
    monkeypatch.setitem(sys.modules, "label_studio_sdk", bare)
    with pytest.raises(ModuleNotFoundError) as caught:
        open_provider(load_config(asking.config(provider="a_tool:Tool")), asking.lake)
    assert "visionloop[labelstudio]" in str(explain(caught.value))


def test_a_provider_that_takes_too_few_requests_is_told(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_tool.py").write_text(
        "from tests.labeling.file_tool import FileTool\n\n\n"
        "class Lazy(FileTool):\n"
        "    def request(self, round_id, asks):\n"
        "        return super().request(round_id, asks[:3])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Exception, match="took 3 of 8 requests"):
        asking.request(provider="lazy_tool:Lazy")
    assert asking.lake.read("label_requests").num_rows == 0


def test_the_configuration_names_providers_as_they_are_opened(asking: Asking) -> None:
    config = json.loads(asking.config())
    assert config["labeling"]["provider"] == PROVIDER
    for name in ("oracle", "csv"):
        labels = {"labels": "folder"} if name == "oracle" else {}
        opened = open_provider(load_config(asking.config(provider=name, **labels)), asking.lake)
        assert type(opened).__name__ in ("OracleProvider", "CsvProvider")
