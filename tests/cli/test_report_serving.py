"""`visionloop report --serve` takes no option that it would not keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionloop.cli import main


@pytest.mark.parametrize("option", [["--json"], ["--fail-on", "act"], ["--version", "v"]])
def test_what_is_for_one_report_is_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--serve", "--lake", str(tmp_path), *option]) == 2
    assert option[0] in capsys.readouterr().err
