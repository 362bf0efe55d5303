"""What docs/selection.md shows works, and it names all there is."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import yaml

from visionloop.selection.config import Preset, parse_selection_config
from visionloop.selection.lines import COMBINATIONS, SCORES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "selection.md").read_text(encoding="utf-8")


def test_every_configuration_on_the_page_is_valid() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M)
    assert len(blocks) == 2
    for block in blocks:
        parse_selection_config(yaml.safe_load(block), where="docs/selection.md")


def test_the_page_names_every_preset_score_and_combination() -> None:
    for preset in typing.get_args(Preset):
        assert f"`{preset}`" in PAGE, preset
    for score in SCORES:
        shown = score.replace("similar_deployed_least_confidence", "similar_deployed_margin")
        shown = shown.replace("similar_deployed_entropy", "similar_deployed_margin")
        assert f"`{shown}`" in PAGE, score
    for kind, strategies in COMBINATIONS.items():
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |")]
        for strategy in strategies - {"RANDOM"}:
            assert strategy in row, f"{strategy} on {kind}"
