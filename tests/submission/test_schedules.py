"""Schedules: the same command again changes nothing, and nothing changes unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.submission.conftest import LOOP
from tests.submission.kfp_stub import KfpStub
from visionloop.cli import main
from visionloop.errors import InputError
from visionloop.submission import Server, Work, prepare
from visionloop.submission.schedules import with_seconds

DAILY = "0 6 * * *"


def test_a_schedule_is_made_once_and_the_same_again_changes_nothing(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        assert server.schedule(work, DAILY).change == "created"
        assert server.schedule(work, DAILY).change == "unchanged"
        assert server.schedule(work, DAILY, replace=True).change == "unchanged"
        (made,) = kfp.recurring
    assert made["display_name"] == "digits-round"
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * *"
    assert int(made["max_concurrency"]) == 1 and made["no_catchup"] is True
    assert made["pipeline_version_reference"]["pipeline_version_id"] == "version-0"
    assert made["runtime_config"]["parameters"]["n_samples"] == 40


def test_one_that_does_something_else_stays_unless_it_is_to_be_replaced(
    work: Work, changed: Work
) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        server.schedule(work, DAILY)
        for other in (lambda **k: server.schedule(changed, DAILY, **k),
                      lambda **k: server.schedule(work, "30 7 * * 1", **k)):  # fmt: skip
            with pytest.raises(InputError, match="--replace"):
                other()
            assert other(replace=True).change == "replaced"
            assert len(kfp.recurring) == 1
    assert kfp.recurring[0]["trigger"]["cron_schedule"]["cron"] == "0 30 7 * * 1"


def test_one_that_is_switched_off_stays_so_when_it_is_replaced(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        server.schedule(work, DAILY)
        server.switch_schedule("digits-round", enabled=False)
        assert server.schedule(work, DAILY).change == "unchanged"
        replaced = server.schedule(work, "30 7 * * 1", replace=True)
        assert (replaced.change, replaced.enabled) == ("replaced", False)
        server.switch_schedule("digits-round", enabled=True)
        assert [(s.name, s.cron, s.enabled) for s in server.schedules()] == [
            ("digits-round", "0 30 7 * * 1", True)
        ]


@pytest.mark.parametrize("status", [0, 500, 503])
def test_one_whose_answer_got_lost_is_not_made_twice(work: Work, status: int) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        kfp.fail("POST", "/recurringruns$", status, done=True)
        assert server.schedule(work, DAILY).schedule_id == "recurring-0"
        assert len(kfp.recurring) == 1


def test_a_failure_between_the_new_one_and_the_old_one_leaves_two_never_none(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        server.schedule(work, DAILY)
        kfp.fail("DELETE", "/recurringruns/", 403)
        with pytest.raises(Exception, match="refuses access"):
            server.schedule(work, "30 7 * * 1", replace=True)
        assert len(kfp.recurring) == 2
        # The same command again finishes it.
        assert server.schedule(work, "30 7 * * 1", replace=True).change == "replaced"
        assert [job["trigger"]["cron_schedule"]["cron"] for job in kfp.recurring] == [
            "0 30 7 * * 1"
        ]


def test_a_schedule_is_removed_by_name_and_an_unknown_name_is_told(work: Work) -> None:
    with KfpStub(page=1) as kfp:
        server = Server.connect(kfp.url)
        server.schedule(work, DAILY)
        server.schedule(work, DAILY, name="second")
        assert [s.change for s in server.delete_schedule("second")] == ["deleted"]
        with pytest.raises(InputError, match=r"no schedule `second`.*digits-round"):
            server.delete_schedule("second")


def test_looking_at_schedules_makes_nothing() -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        assert server.schedules("mistyped") == []
        with pytest.raises(InputError, match="`mistyped` is not there"):
            server.delete_schedule("digits-round", "mistyped")
        assert kfp.experiments == []


def test_half_a_round_cannot_be_scheduled(tmp_path_factory: pytest.TempPathFactory) -> None:
    half = prepare("train_and_publish", LOOP, tmp_path_factory.mktemp("half"))
    with KfpStub() as kfp, pytest.raises(InputError, match="differ from run to run"):
        Server.connect(kfp.url).schedule(half, DAILY)
    assert kfp.recurring == []


def test_five_cron_fields_get_their_seconds_and_nonsense_is_refused() -> None:
    assert with_seconds("*/5 * * * *") == "0 */5 * * * *"
    assert with_seconds("30 0 6 ? * MON-FRI") == "30 0 6 ? * MON-FRI"
    for wrong in ("daily at six", "* * *", "0 6 * * * * *", "0 6 * * !"):
        with pytest.raises(InputError, match="cron expression"):
            with_seconds(wrong)


@pytest.mark.parametrize(
    ("cron", "field"),
    [
        ("60 * * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 6 0 * *", "'0' is no day of the month"),
        ("0 6 * 13 *", "'13' is no month"),
        ("0 6 * * 7", "'7' is no day of the week"),
        ("0 6 * * FOO", "'FOO' is no day of the week"),
        ("0 20-6 * * *", "'20-6' is no hour"),
        ("*/0 * * * *", "'\\*/0' is no minute"),
        ("? * * * *", "is no minute"),
        ("0 1,25 * * *", "'1,25' is no hour"),
    ],
)
def test_a_field_out_of_its_range_is_named_before_a_server_is_asked(
    cron: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=field):
        with_seconds(cron)
    (tmp_path / "loop.yaml").write_text(LOOP, encoding="utf-8")
    command = ["schedule", "watch", "--config", str(tmp_path / "loop.yaml"), "--cron", cron]
    assert main([*command, "--host", "http://127.0.0.1:9"]) == 2
    assert "is not a cron expression" in capsys.readouterr().err


def test_fields_within_their_ranges_are_taken() -> None:
    for cron in ("0 0 1,15 JAN-mar sun", "5/10 0-23/2 ? * 0-6", "59 23 31 12 6", "0,30 * * * ?"):
        assert with_seconds(cron) == f"0 {cron}"


def test_the_command_makes_shows_switches_and_removes(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path_factory.mktemp("loop") / "loop.yaml"
    config.write_text(LOOP, encoding="utf-8")
    with KfpStub() as kfp:
        host = ("--host", kfp.url)
        make = ["schedule", "watch", "--config", str(config), "--cron", "*/15 * * * *", *host]
        assert main([*make, "--set", "watch.min_new_samples=500"]) == 0
        assert "watch: created, digits-watch, 0 */15 * * * * (UTC)" in capsys.readouterr().out
        (job,) = kfp.recurring
        parameters = job["runtime_config"]["parameters"]
        assert json.loads(parameters["config"])["watch"] == {"min_new_samples": 500}
        assert "exec-train" in next(iter(kfp.packages.values()))
        assert main(make) == 2
        assert "--replace" in capsys.readouterr().err
        assert main(["schedule", "--disable", "digits-watch", *host]) == 0
        assert main(["schedule", "--list", "--json", *host]) == 0
        shown = json.loads(capsys.readouterr().out.splitlines()[-1])["schedules"]
        assert [(s["name"], s["enabled"]) for s in shown] == [("digits-watch", False)]
        assert main(["schedule", "--delete", "digits-watch", *host]) == 0
        assert main(["schedule", "--list", *host]) == 0
        assert capsys.readouterr().out.endswith("visionloop: no schedules\n")


def test_schedules_are_looked_after_in_the_namespace_of_the_configuration(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path_factory.mktemp("loop") / "loop.yaml"
    config.write_text(LOOP + "cluster: {namespace: team-a}\n", encoding="utf-8")
    with KfpStub(single_user=False) as kfp:
        given = ["--host", kfp.url, "--config", str(config)]
        assert main(["schedule", "watch", "--cron", "0 6 * * *", *given]) == 0
        for asked in (["--list"], ["--disable", "digits-watch"], ["--enable", "digits-watch"]):
            assert main(["schedule", *asked, *given]) == 0
            assert "digits-watch" in capsys.readouterr().out
        assert main(["schedule", "--delete", "digits-watch", *given]) == 0
        assert kfp.recurring == []
        asked_in = {tuple(r.query.get("namespace", [])) for r in kfp.asked("GET", "/experiments$")}
        assert asked_in == {("team-a",)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "PIPELINE is missing"),
        (["watch"], "--config is missing"),
        (["watch", "--config", "loop.yaml"], "no time was given"),
    ],
)
def test_what_a_new_schedule_lacks_is_told(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schedule", *arguments]) == 2
    assert words in capsys.readouterr().err
