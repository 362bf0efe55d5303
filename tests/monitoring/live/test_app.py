"""The live view over real lakes: what it shows, what it refuses, and what it goes on through."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.monitoring.live.small_lake import LATITUDE, MODEL, START, SmallLake
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.lake.vacuum import vacuum
from visionloop.monitoring.live import following as following_module
from visionloop.monitoring.live.app import live_app
from visionloop.monitoring.live.following import ANEW_SECONDS, Following, Report
from visionloop.monitoring.live.guard import Guard, is_loopback, name_of, refuse_open_host
from visionloop.monitoring.live.pictures import Pictures
from visionloop.serving.access import Access

Open = Callable[..., TestClient]


@pytest.fixture(scope="module")
def view(request: pytest.FixtureRequest) -> Open:
    """Return a function that opens the live view of a lake."""

    def opened(place: Path, *, token_file: str = "", wait: bool = True) -> TestClient:
        following, pictures = Following(str(place), reports=False), Pictures()
        request.addfinalizer(following.close)
        request.addfinalizer(pictures.close)
        following.start()
        app = Guard(live_app(following, pictures), Access(token_file) if token_file else None)
        client = TestClient(app, base_url="http://127.0.0.1:8092", raise_server_exceptions=True)
        client.following = following  # type: ignore[attr-defined]
        if wait:
            until(lambda: following.shown.index is not None)
        return client

    return opened


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallLake:
    """Return a lake that nobody changes."""
    made = SmallLake(tmp_path_factory.mktemp("small"))
    made.learn()
    return made


@pytest.fixture(scope="module")
def client(small: SmallLake, view: Open) -> TestClient:
    return view(small.folder / "lake")


@pytest.fixture
def own(tmp_path: Path) -> SmallLake:
    """Return a lake to be changed."""
    made = SmallLake(tmp_path)
    made.learn()
    return made


def names(client: TestClient, query: str) -> list[str]:
    answer = client.get(f"/api/images?{query}")
    assert answer.status_code == 200, answer.text
    return [one["sample_id"] for one in answer.json()["images"]]


def test_any_column_of_any_table_filters(small: SmallLake, client: TestClient) -> None:
    ids = small.ids
    assert names(client, "") == ids
    assert names(client, "column=label&op=eq&value=dog") == ids[1:10:2]
    assert names(client, "column=flags&op=eq&value=dark") == ids[3:5]
    assert names(client, "column=arm&op=eq&value=random") == [ids[1]]
    assert names(client, "column=checks&op=eq&value=flagged") == ids[::5]
    assert names(client, "column=metadata.wet&op=eq&value=yes") == ids[::3]
    assert names(client, "column=metadata.camera&op=contains&value=NORTH") == ids[1::2]
    assert names(client, "column=metadata.latitude&op=gt&value=75") == ids[28:]
    assert names(client, "column=agrees&op=eq&value=no") == ids[1:10:2]
    assert names(client, "column=brightness&op=eq&value=0.07") == [ids[7]]
    two = "column=split&op=ne&value=pool&column=captured_at&op=lt&value=2026-11-21"
    assert names(client, two) == [ids[9]]
    assert names(client, "sort=captured_at&order=desc&size=2") == [ids[29], ids[28]]


def test_predictions_are_of_the_newest_model_that_predicted_more_than_the_holdout(
    small: SmallLake, client: TestClient
) -> None:
    told = client.get("/api/images").json()
    assert told["predictions_of"] == MODEL
    assert {one["prediction"] for one in told["images"]} == {"cat"}
    assert {one["confidence"] for one in told["images"]} == {0.9}


def test_pages_link_to_one_another_until_all_was_seen(small: SmallLake, client: TestClient) -> None:
    seen, at = [], "/api/images?size=7&column=split&op=eq&value=pool"
    while at:
        told = client.get(at).json()
        seen += [one["sample_id"] for one in told["images"]]
        at = told["next"]
    assert seen == [one for place, one in enumerate(small.ids) if place % 10 != 9]
    assert (told["total"], told["matching"], told["page"], told["pages"]) == (30, 27, 4, 4)


def test_a_filter_without_hits_is_no_error_and_a_wrong_one_names_the_columns(
    small: SmallLake, client: TestClient
) -> None:
    none = client.get("/images?column=label&op=eq&value=horse")
    assert none.status_code == 200
    assert '<span class="number">0</span> of 30 images' in none.text
    wrong = client.get("/images?column=lable&op=eq&value=horse")
    assert wrong.status_code == 400
    assert "label, label_origin" in wrong.text
    assert client.get("/api/images?column=lable&op=eq&value=1").json()["remedy"].startswith("Use")


def test_a_parameter_that_is_none_is_refused_and_the_nearest_is_named(client: TestClient) -> None:
    for place in ("/images", "/api/images"):
        wrong = client.get(f"{place}?colum=label")
        assert wrong.status_code == 400, place
        assert "did you mean `column`" in wrong.text, place


def test_names_from_data_are_text_on_every_page(small: SmallLake, client: TestClient) -> None:
    pages = ["/images", f"/images/{small.ids[0]}", f"/images/{small.ids[3]}",
             "/images?column=metadata.camera&op=eq&value=%3Ci%3Enorth%3C/i%3E",
             "/images?column=<script>alert(1)</script>&op=eq&value=1"]  # fmt: skip
    for page in pages:
        text = client.get(page).text
        assert not [tag for tag in ("<script>alert", "<i>", "<b>bucket", "<u>") if tag in text]
    assert "&lt;script&gt;alert(1)&lt;b&gt;bucket" in client.get("/images").text
    assert "script-src 'self'" in client.get("/images").headers["content-security-policy"]


def test_the_page_of_an_image_tells_all_with_all_digits(
    small: SmallLake, client: TestClient
) -> None:
    text = client.get(f"/images/{small.ids[3]}").text
    assert f"{LATITUDE + 3:.15g}" in text
    for said in ("sharpness 0.25 ratio, threshold 0.75 ratio", "compared with the pool", "Blurred",
                 "<b>dog</b> from the oracle, round 1", "cat 90.00%, dog 10.00%",
                 "cosine distance", f"/thumbnails/{small.ids[5]}", "Came in from"):  # fmt: skip
        assert said in text, said
    assert "Drawn at random" in client.get(f"/images/{small.ids[1]}").text


def test_only_an_images_own_bytes_are_shown(own: SmallLake, view: Open) -> None:
    small = own
    client, ids = view(small.folder / "lake"), small.ids
    first = client.get(f"/media/{ids[0]}")
    assert first.content == small.path(0).read_bytes()
    assert first.headers["content-type"] == "image/png"
    assert client.get(f"/thumbnails/{ids[0]}").content == small.path(0).read_bytes()
    small.path(1).write_bytes(small.path(2).read_bytes())
    small.path(3).unlink()
    assert client.get(f"/media/{ids[1]}").content != small.path(2).read_bytes()
    assert client.get(f"/media/{ids[3]}").headers["content-type"] == "image/png"
    assert "no more where it lay" in client.get(f"/images/{ids[3]}").text
    away = ["/media/..%2f..%2fetc%2fpasswd", "/media/../../etc/passwd", "/live.css/../base.html.j2"]
    for path in (f"/media/{'0' * 64}", "/images/nothing", "/thumbnails/%00", *away):
        assert client.get(path).status_code == 404, path


def test_it_only_reads_and_only_for_this_machine(small: SmallLake, client: TestClient) -> None:
    assert client.post("/images").status_code == 405
    assert client.delete(f"/media/{small.ids[0]}").status_code == 405
    for host in ("rebound.example:8092", "127.0.0.1.example", "[::2]:8092", ""):
        answer = client.get("/images", headers={"host": host})
        assert answer.status_code == 421, host
        assert "picture" not in answer.text
    for host in ("localhost:9999", "127.0.0.1", "[::1]:8092"):
        assert client.get("/images", headers={"host": host}).status_code == 200, host


def test_elsewhere_a_token_is_needed(small: SmallLake, view: Open, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="everybody who reaches"):
        refuse_open_host("0.0.0.0", "")
    refuse_open_host("::1", "")
    assert not is_loopback("localhost.example")
    assert name_of("[::1]:80") == "::1"
    token = "a-token-of-some-length"
    (tmp_path / "tokens").write_text(token)
    refuse_open_host("0.0.0.0", str(tmp_path / "tokens"))
    client = view(small.folder / "lake", token_file=str(tmp_path / "tokens"))
    refused = client.get("/images", headers={"host": "views.example"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")
    assert client.get("/images", auth=("me", token)).status_code == 200
    assert client.get("/images", auth=("me", token + "x")).status_code == 401
    assert client.get("/healthz").status_code == 200


def test_a_lake_that_is_not_there_is_waited_for(tmp_path: Path, view: Open) -> None:
    client = view(tmp_path / "lake", wait=False)
    waiting = client.get("/images")
    assert waiting.status_code == 200
    assert "waits for it" in waiting.text
    assert client.get("/api/images").status_code == 503
    small = SmallLake(tmp_path, 3)
    until(lambda: client.get("/api/images").status_code == 200)
    assert names(client, "") == small.ids


def test_a_lake_whose_first_stage_is_at_work_is_looked_at_as_often_as_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    with contextlib.suppress(ZeroDivisionError), lake.run(stage="ingest", round_id="0000"):
        raise ZeroDivisionError
    monkeypatch.setattr(following_module, "LOOK_SECONDS", 0.02)
    looks: list[str] = []
    version = Lake.version

    def counted(self: Lake) -> str:
        looks.append(found := version(self))
        return found

    monkeypatch.setattr(Lake, "version", counted)
    following = Following(str(tmp_path / "lake"), loop="test", reports=False)
    monkeypatch.setattr(following, "_open", lambda: lake)
    following.start()
    until(lambda: len(looks) >= 20, seconds=15)  # with pauses that double: a day
    assert "first stage has not ended" in following.shown.problem
    following.close()


def test_it_ends_while_the_making_of_a_report_begins(tmp_path: Path) -> None:
    following = Following(str(tmp_path / "lake"), reports=False)
    following.start()
    # As between the making of a process and its start, which takes some milliseconds.
    following._child = multiprocessing.get_context("spawn").Process(target=print)
    following.close()
    assert not Path(following._folder.name).exists()


def test_a_report_that_is_not_made_in_time_is_given_up_and_it_says_so(small: SmallLake) -> None:
    following = Following(str(small.folder / "lake"), report_seconds=0.01)
    following.start()
    until(lambda: bool(following.shown.no_report))
    child = following._child
    assert following.shown.no_report.endswith("could not be made within 0.01 seconds")
    assert child is not None and not child.is_alive()
    following.close()


def test_an_old_report_is_made_anew_where_somebody_looks_at_it_and_nowhere_else(
    small: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "LOOK_SECONDS", 0.02)
    following, pictures = Following(str(small.folder / "lake"), anew_seconds=0), Pictures()
    client = TestClient(
        Guard(live_app(following, pictures), None), base_url="http://127.0.0.1:8092"
    )
    with contextlib.closing(following), contextlib.closing(pictures):
        following.start()
        until(lambda: following.shown.report is not None)
        # It is old at once: labels fall due, and flags grow older. Nobody looks at it so far.
        child, told = following._child, client.get("/version").json()
        client.get("/images")
        assert not following._is_due() and following._child is child
        page = client.get("/").text
        assert "It is being made anew." in page and f'data-made="{told["report_made"]}"' in page
        assert '<iframe src="/report"' in page  # the old one is shown meanwhile
        until(lambda: client.get("/version").json()["report_made"] != told["report_made"])
        assert following._child is not child and not following._is_due()


def test_a_report_is_old_after_some_minutes(client: TestClient) -> None:
    index = client.following.shown.index  # type: ignore[attr-defined]
    following, now = Following("somewhere", reports=False), time.monotonic()
    assert not following._is_due()
    following._put(index=index, newest="v")
    assert following._is_due()
    following._put(report=Report("v", b"", now, START))
    following.ask()
    assert not following._is_due()
    following._put(report=Report("v", b"", now - ANEW_SECONDS, START))
    assert not following._is_due()
    following.ask()
    assert following._is_due()
    following._folder.cleanup()  # its threads were never started


def test_rounds_and_answers_are_told_as_on_the_page(small: SmallLake, client: TestClient) -> None:
    # No round was opened: what came in did so before the first.
    assert "before round 0" in client.get("/images?sort=round").text
    told = client.get("/images").text
    assert "cat, 90.0% as answered" in told and "0000" not in told.replace(small.ids[0], "")
    assert "90.00% sure as answered" in client.get(f"/images/{small.ids[0]}").text


def test_a_newer_version_is_told_and_shown_and_an_older_ones_files_may_go(
    own: SmallLake, view: Open
) -> None:
    small = own
    client = view(small.folder / "lake")
    following: Following = client.following  # type: ignore[attr-defined]
    stale = following.shown.index
    assert stale is not None
    following.close()  # the view stays at its version, as between two looks at the lake
    small.add(5)
    with small.lake.run(stage="monitor", round_id="0002") as run:
        run.replace("metadata", small.lake.read("metadata").slice(0, 0), "sample_id != ''")
        run.commit()
    vacuum(small.lake, keep_versions=1, safety=timedelta(0))
    with pytest.raises(InputError):
        small.lake.read("labels", version=stale.version)
    assert client.get("/version").json()["images"] == stale.version
    answer = client.get(f"/images/{small.ids[0]}")
    assert answer.status_code == 200
    newest = small.lake.version()
    assert client.get("/version").json()["images"] == newest
    assert client.get("/api/images").json()["total"] == 35


def test_columns_are_documented(small: SmallLake, client: TestClient) -> None:
    columns = {one["name"]: one for one in client.get("/api/columns").json()["columns"]}
    assert columns["metadata.latitude"]["kind"] == "number"
    assert "contains" not in columns["metadata.latitude"]["operators"]
    for name, column in columns.items():
        for op in column["operators"]:
            value = {"number": "1", "time": "2026-11-20", "yes or no": "no", "set": "dark"}.get(
                column["kind"], "x"
            )
            asked = client.get("/api/images", params={"column": name, "op": op, "value": value})
            assert asked.status_code == 200, (name, op)
        assert client.get(f"/api/images?sort={name}&order=desc").status_code == 200
    assert "/api/images" in client.get("/openapi.json").json()["paths"]


def test_every_colour_of_these_pages_is_one_of_the_report() -> None:
    import re

    from visionloop.monitoring.live import pages

    style = pages.style()
    assert not set(re.findall(r"var\((--[\w-]+)", style)) - set(
        re.findall(r"(--[\w-]+)\s*:", style)
    )
