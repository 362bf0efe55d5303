"""What metadata are for: a balanced selection, and a holdout of whole groups."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.media.test_metadata_sources import World
from visionloop import cli
from visionloop.errors import InputError

WEATHER = ["sun"] * 8 + ["rain"] * 2 + ["fog"] * 2


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Twelve pictures of three cameras on two days, and their weather in a table."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    world = World(tmp_path, pattern="{camera}/{day:%Y-%m-%d}/{}")
    rows = ["file_name,weather"]
    for n, weather in enumerate(WEATHER):
        name = f"{('dock', 'quay', 'gate')[n % 3]}/2026-03-{2 + n % 2:02}/{n}.png"
        world.photo(name, n)
        rows.append(f"{name},{weather}")
    world.put("metadata.csv", "\n".join(rows))
    return world


@pytest.mark.parametrize(
    ("key", "target", "wanted"),
    [
        ("weather", {"sun": 1 / 3, "rain": 1 / 3, "fog": 1 / 3}, {"sun": 2, "rain": 2, "fog": 2}),
        ("camera", {"dock": 2 / 3, "gate": 1 / 3}, {"dock": 4, "gate": 2}),
    ],
)
def test_a_selection_balances_what_was_ingested(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    key: str,
    target: dict[str, float],
    wanted: dict[str, int],
) -> None:
    world.settings["holdout"] = {"fraction": 0}
    world.ingest()
    line = {
        "input": {"type": "METADATA", "key": key},
        "strategy": {"type": "BALANCE", "target": target},
    }
    config = tmp_path / "selection.json"
    config.write_text(json.dumps({"n_samples": 6, "random_share": 0, "strategies": [line]}))
    capsys.readouterr()
    asked = ["select", "--lake", world.settings["lake"], "--config", str(config), "--json"]
    assert cli.main(asked) == 0
    picks = json.loads(capsys.readouterr().out)["picks"]
    values = {row["sample_id"]: row[key] for row in world.rows("metadata")}
    assert Counter(values[pick["sample_id"]] for pick in picks) == wanted


@pytest.mark.parametrize("column", ["camera", "day", "weather"])
def test_the_holdout_takes_groups_of_a_path_or_a_table_whole(world: World, column: str) -> None:
    world.settings["holdout"] = {"fraction": 0.3, "group_by": column, "copy_likeness": 1}
    world.ingest()
    group = {row["sample_id"]: row[column] for row in world.rows("metadata")}
    splits: dict[str, set[str]] = {}
    for row in world.rows("samples"):
        splits.setdefault(str(group[row["sample_id"]]), set()).add(row["split"])
        assert row["group_key"] and row["group_key"][:4] == str(group[row["sample_id"]])[:4]
    assert all(len(told) == 1 for told in splits.values())
    assert {"holdout"} in splits.values() and {"pool"} in splits.values()


@pytest.mark.parametrize(
    ("group_by", "metadata", "told"),
    [("camra", "all", "did you mean `camera`"), ("camera", "none", "leave group_by out")],
)
def test_a_group_that_nothing_has_is_refused_before_a_holdout_is_drawn_without_it(
    world: World, group_by: str, metadata: str, told: str
) -> None:
    world.settings["holdout"] = {"fraction": 0.3, "group_by": group_by}
    source = world.settings["sources"][0] | {"metadata": metadata}
    if metadata == "none":
        del source["pattern"]
    world.settings["sources"] = [source]
    with pytest.raises(InputError) as caught:
        world.ingest()
    assert told in caught.value.what + caught.value.remedy
    assert caught.value.where == "holdout.group_by" and not world.rows("samples")


def test_new_samples_without_a_group_are_counted(world: World) -> None:
    world.settings["holdout"] = {"fraction": 0.3, "group_by": "weather"}
    world.photo("dock/2026-03-02/later.png", 90)
    world.ingest()
    assert world.counted.metrics["n_without_group"] == 1
    world.photo("dock/2026-03-02/later still.png", 91)
    world.ingest()
    assert world.counted.metrics["n_without_group"] == 1, "the lake has the column"
    assert len(world.rows("samples")) == len(WEATHER) + 2
