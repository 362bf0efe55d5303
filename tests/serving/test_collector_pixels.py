"""Whose pixels a collector keeps: nobody's, a known share, or what a redaction leaves of them."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Server, Starter, picture
from tests.serving.test_collector import EVENT, encoded_request, wait_for_lines
from visionloop.errors import InputError
from visionloop.serving.logged_images import LoggedImages
from visionloop.serving.pixels import Pixels, drawn, redaction_of
from visionloop.source_config import SourceConfig
from visionloop.stages.harvest import harvest

REDACTION = '''
import io, time
from PIL import Image


def darken(image, content_type):
    """Keep nothing of GIFs, fail over small pictures, darken the others."""
    if content_type == "image/gif":
        return None
    picture = Image.open(io.BytesIO(image))
    if picture.width < 8:
        raise ValueError("too small")
    out = io.BytesIO()
    picture.point(lambda value: value // 2).save(out, format="PNG")
    return out.getvalue()
'''


def fates(server: Server) -> dict[str, int]:
    found = {}
    for line in server.get("/metrics").decode().splitlines():
        if line.startswith("visionloop_collector_pixels_total{"):
            found[line.split('"')[1]] = int(float(line.rsplit(" ", 1)[1]))
    return {fate: number for fate, number in found.items() if number}


def taken(folder: Path) -> list[tuple[bytes | None, str, dict[str, Any]]]:
    """Return what an ingest of the events finds."""
    source = LoggedImages(SourceConfig(uri=str(folder), kind="events"))
    return [
        (member.data, member.unreadable, dict(member.entry.values))
        for entry in source.entries()
        for member in source.members(entry)
    ]


def test_a_known_share_keeps_its_pixels_and_every_line_tells_it(
    start: Starter, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    server = start("collect", events=str(folder), port=0, keep="bodies", keep_rate=0.3)
    sent = {}
    for number in range(60):
        image = picture(number)
        sent[f"{number}"] = image
        headers = {**EVENT, "Ce-Id": f"{number}"}
        assert server.post("/", encoded_request(image), headers)[0] == 200
    found = wait_for_lines(folder, 60)
    server.stop()
    kept = {line["headers"]["ce-id"] for line in found if "body_b64" in line}
    assert kept == {
        name
        for name, image in sent.items()
        if drawn(name, hashlib.sha256(encoded_request(image)).hexdigest(), 0.3)
    }
    assert 8 <= len(kept) <= 30
    assert {line["keep_rate"] for line in found} == {0.3}
    for line in found:
        image = sent[line["headers"]["ce-id"]]
        assert line["request"]["samples"] == [hashlib.sha256(image).hexdigest()]
    images = [(data, values) for data, _, values in taken(folder) if data]
    assert {data for data, _ in images} == {sent[name] for name in kept}
    assert {values["keep_rate"] for _, values in images} == {0.3}


def test_the_draw_keeps_the_share_and_knows_no_other_reason() -> None:
    bodies = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(20_000)]
    for rate in (0.01, 0.5):
        share = sum(drawn("one client's only id", body, rate) for body in bodies) / len(bodies)
        assert abs(share - rate) < 4 * (rate * (1 - rate) / len(bodies)) ** 0.5
    assert all(drawn("", body, 1.0) for body in bodies[:100])


def test_a_redaction_changes_what_is_kept_and_where_it_fails_nothing_is(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_redaction.py").write_text(REDACTION)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "lake" / "events"
    server = start("collect", events=str(folder), port=0, redact="my_redaction:darken")
    good, gif, tiny = picture(1), picture(2, form="GIF"), picture(3, size=4)
    tensor = json.dumps({"instances": [[[[1, 2, 3]]]]}).encode()
    at = datetime.now(UTC) - timedelta(seconds=1)
    for name, body in {
        "good": encoded_request(good),
        "gif": encoded_request(gif),
        "tiny": encoded_request(tiny),
        "tensor": tensor,
    }.items():
        headers = {**EVENT, "Ce-Id": name, "Ce-Time": at.isoformat()}
        assert server.post("/", body, headers)[0] == 200
        headers["Ce-Type"] = headers["Ce-Type"].replace("request", "response")
        assert server.post("/", b'{"predictions": [[0.25, 0.75]]}', headers)[0] == 200
    wait_for_lines(folder, 8)
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    expected = {"redacted": 1, "withheld": 1, "redaction_failed": 1, "no_image": 1}
    while fates(server) != expected and datetime.now(UTC) < deadline:
        time.sleep(0.05)
    assert fates(server) == expected
    assert server.stop() == 0
    assert "too small" in server.log.read_text()
    text = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for image in (good, gif, tiny):
        assert encoded_request(image)[-100:-40] not in text  # after the header, which all share
    images = [data for data, _, _ in taken(folder) if data]
    assert len(images) == 1
    assert images[0] != good
    # What the redaction left is the sample that the answer's confidence names.
    config = json.dumps({"lake": str(folder.parent), "name": "test"})
    assert harvest(config=config).n_confidences == 4
    from visionloop.lake import Lake

    rows = Lake.open(str(folder.parent), loop="test").read("confidences").to_pylist()
    named = {row["event_id"]: row["sample_id"] for row in rows}
    assert named == {
        "good": hashlib.sha256(images[0]).hexdigest(),
        "gif": hashlib.sha256(gif).hexdigest(),
        "tiny": hashlib.sha256(tiny).hexdigest(),
        "tensor": None,
    }


def test_a_redaction_that_hangs_or_answers_nonsense_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.serving import pixels

    monkeypatch.setattr(pixels, "_SECONDS", 0.1)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "odd_redactions.py").write_text(
        "import time\n\n\ndef hang(image, content_type):\n    time.sleep(60)\n\n\n"
        "def talk(image, content_type):\n    return 'blurred'\n"
    )
    body = encoded_request(picture(1))
    digest = hashlib.sha256(body).hexdigest()
    for name in ("hang", "talk"):
        kept = Pixels(1.0, f"odd_redactions:{name}")
        record: dict[str, Any] = {"headers": {}, "body_sha256": digest}
        record["request"] = {"samples": ["original"]}
        kept.keep(record, body, "application/json")
        assert kept.counts == {"redaction_failed": 1}
        assert record["images_b64"] == [None]
        assert record["request"]["samples"] == ["original"]


@pytest.mark.parametrize("path", ["no_such_module:f", "json:no_such_name", "json:__name__"])
def test_a_redaction_that_is_not_there_is_said(path: str) -> None:
    with pytest.raises(InputError, match="redaction"):
        redaction_of(path)


def test_redaction_and_rate_belong_to_bodies() -> None:
    from visionloop.serving.collector_config import CollectorConfig

    for wrong in ({"redact": "a:b"}, {"keep_rate": 0.5}, {"client_authority": "a.pem"}):
        with pytest.raises(ValueError, match=r"`keep: bodies`|`certificate`"):
            CollectorConfig(**wrong)


def test_the_command_takes_its_settings_from_the_configuration_and_options_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.cli import main
    from visionloop.serving import collector

    given: dict[str, Any] = {}
    monkeypatch.setattr(
        collector, "run_collector", lambda events, **said: given.update(said, events=events)
    )
    config = tmp_path / "loop.yaml"
    config.write_text(
        "lake: lake\nserving:\n  collector: {keep: bodies, keep_rate: 0.1, max_body_mib: 1}\n"
    )
    assert main(["collect", "--config", str(config), "--keep-rate", "0.2"]) == 0
    assert given["events"].endswith("/lake/events")
    assert (given["keep"], given["keep_rate"], given["durable"]) == ("bodies", 0.2, True)
    assert given["max_body_bytes"] == 1024 * 1024
    # Without a configuration no pixels are kept, and what makes no sense is said.
    assert main(["collect", "--events", str(tmp_path), "--no-durable"]) == 0
    assert (given["keep"], given["durable"]) == ("hashes", False)
    assert main(["collect", "--events", str(tmp_path), "--redact", "a:b"]) == 2
