"""A key that nobody knows is refused where it stands, and the nearest known one is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.conftest import SmallLoop
from visionloop.config import load_config
from visionloop.errors import InputError

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("path", "unknown", "known"),
    [
        ("", "clases", "classes"),
        ("holdout", "fracton", "fraction"),
        ("training", "epoch", "epochs"),
        ("sources.0", "copi", "copy"),
        ("sources.0", "label", "labels"),
        ("serving", "endpont", "endpoint"),
        ("cluster", "accelerator_typ", "accelerator_type"),
        ("selection", "n_sample", "n_samples"),
        ("selection.strategies.0", "inpt", "input"),
        ("selection.strategies.0.input", "typ", "type"),
        ("selection.strategies.0.strategy", "strenght", "strength"),
    ],
)
def test_in_loop_yaml_at_each_depth(
    loop: SmallLoop, command: Command, path: str, unknown: str, known: str
) -> None:
    loop.settings["selection"]["strategy"] = "custom"
    loop.settings["selection"]["strategies"] = [
        {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": "DIVERSITY"}}
    ]
    place: Any = loop.settings
    for part in path.split(".") if path else []:
        place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
    place[unknown] = 1
    status, _, err = command("run", "intake", "--config", loop.config)
    assert status == 2
    full = f"{path}.{unknown}" if path else unknown
    assert f"unknown key `{full}`" in err and f"(did you mean `{known}`?)" in err
    assert "loop.yaml" in err
    assert not (loop.folder / "lake").exists()


@pytest.mark.parametrize(
    ("settings", "unknown", "known"),
    [
        ({"n_sampels": 3}, "n_sampels", "n_samples"),
        (
            {"strategies": [{"input": {"type": "EMBEDDINGS"}, "stratgy": {"type": "DIVERSITY"}}]},
            "strategies.0.stratgy",
            "strategy",
        ),
        (
            {
                "strategies": [
                    {
                        "input": {"type": "SCORES", "score": "margin", "modle": "x"},
                        "strategy": {"type": "WEIGHTS"},
                    }
                ]
            },
            "strategies.0.input.modle",
            "",
        ),
    ],
)
def test_in_selection_yaml(
    tmp_path: Path, command: Command, settings: dict[str, Any], unknown: str, known: str
) -> None:
    path = tmp_path / "selection.yaml"
    path.write_text(yaml.safe_dump(settings))
    status, _, err = command("select", "--lake", str(tmp_path / "lake"), "--config", str(path))
    assert status == 2
    assert unknown in err and "selection.yaml" in err
    assert not known or f"did you mean `{known}`?" in err
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ("n_sample=5", "n_samples"),
        ("trainng.epochs=5", "training"),
        ("training.epoch=5", "epochs"),
        ("selection.strateg=random", "strategy"),
    ],
)
def test_in_set(loop: SmallLoop, command: Command, setting: str, known: str) -> None:
    status, _, err = command("run", "round", "--config", loop.config, "--set", setting)
    assert status == 2
    assert setting.partition("=")[0] in err and f"did you mean `{known}`?" in err
    assert not (loop.folder / "lake").exists()


def test_a_value_that_does_not_fit_is_named_with_what_was_given(
    loop: SmallLoop, command: Command
) -> None:
    status, _, err = command(
        "run", "round", "--config", loop.config, "--set", "holdout.fraction=1.5"
    )
    assert status == 2
    assert "`holdout.fraction`" in err and "1.5" in err


def test_several_mistakes_are_told_at_once(loop: SmallLoop, command: Command) -> None:
    loop.settings |= {"nme": "x", "training": {"epochz": 3, "batch_size": -1}}
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2
    assert all(word in err for word in ("`nme`", "`training.epochz`", "`training.batch_size`"))


def test_no_known_key_is_near_and_none_is_guessed(loop: SmallLoop, command: Command) -> None:
    loop.settings["zzzzzz"] = 1
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2 and "`zzzzzz`" in err and "did you mean" not in err
    assert not (loop.folder / "lake").exists()


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    text = "lake: one\nsources: [{uri: a}]\ntraining: {epochs: 1}\ntraining: {epochs: 2}\n"
    with pytest.raises(InputError, match=r"`training` stands twice .*line 4"):
        load_config(text)
    with pytest.raises(InputError, match=r"`uri` stands twice .*line 3"):
        load_config("lake: one\nsources:\n  - {uri: a, uri: b}\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("selection.yaml", "n_samples: 5\nstrategy: random\nn_samples: 50\n"),
        ("selection.json", '{"n_samples": 5,\n"strategy": "random",\n"n_samples": 50}'),
    ],
)
def test_a_selection_configuration_says_no_key_twice_either(
    tmp_path: Path, command: Command, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    status, _, err = command("select", "--lake", str(tmp_path), "--config", str(tmp_path / name))
    assert status == 2
    assert "`n_samples` stands twice" in err and f"{name}, line 3" in err
