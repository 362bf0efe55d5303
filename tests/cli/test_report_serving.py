"""What is served, and what is told once, takes no option that it would not keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionloop.cli import main


@pytest.mark.parametrize(
    "option", [["--json"], ["--fail-on", "act"], ["--version", "v"], ["--output", "f"]]
)
def test_what_is_for_one_report_is_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--serve", "--lake", str(tmp_path), *option]) == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("report", ["--port", "1"]),
        ("report", ["--token-file", "tokens"]),
        ("metrics", ["--host", "0.0.0.0"]),
        ("metrics", ["--port-file", "port"]),
        ("metrics", ["--every", "5"]),
    ],
)
def test_what_is_for_a_server_is_refused_where_nothing_is_served(
    command: str, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--lake", str(tmp_path), *option]) == 2
    assert f"{option[0]} is for a server" in capsys.readouterr().err


@pytest.mark.parametrize("loop", [[], ["--loop", "test"]])
def test_metrics_are_not_served_where_no_lake_was_named(
    loop: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metrics", "--serve", "--port", "0", *loop]) == 2
    assert "no lake was named" in capsys.readouterr().err
