"""What stands in a task for its image, and whether a browser gets the image by it."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.bucket_stub import Bucket, bucket_stub
from tests.labeling.media.google import ACCOUNT, Google, google
from tests.media.test_ingest import Loop, picture
from visionloop.config import LoopConfig, load_config
from visionloop.errors import InputError
from visionloop.labeling.media.links import image_links, valid_until
from visionloop.labeling.media.signatures import Keys

KEY = "0123456789abcdef-key"
ROOT = "gs://photos/in"


@pytest.fixture
def held() -> Iterator[Google]:
    with google() as found:
        yield found


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with bucket_stub() as (address, found):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield found


def config_of(loop: Loop, **label_studio: Any) -> LoopConfig:
    settings = loop.settings | {
        "labeling": {
            "provider": "label_studio",
            "label_studio": {"url": "http://labels.example", **label_studio},
        }
    }
    return load_config(json.dumps(settings))


def links_of(loop: Loop, **label_studio: Any) -> dict[str, str]:
    """Return each image's link by the end of its place."""
    config = config_of(loop, **label_studio)
    media = loop.lake.media()
    links = image_links(config, loop.lake, media)
    assert set(links) == set(media)
    return {media[sample].rpartition("/in/")[2]: link for sample, link in links.items()}


def fetch(url: str) -> tuple[int, bytes, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers["content-type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read(), ""


def tiff() -> bytes:
    into = io.BytesIO()
    Image.open(io.BytesIO(picture(5))).save(into, "TIFF")
    return into.getvalue()


@pytest.fixture
def photos(tmp_path: Path, bucket: Bucket, held: Google, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A loop with two objects of a bucket, whose links lead to the Google of these tests."""
    for name, data in {"a b+ü.png": picture(1), "c.png": picture(2)}.items():
        generation = bucket.put(f"in/{name}", data)
        held.objects[f"photos/in/{name}"] = (data, str(generation))
    loop = Loop(tmp_path, sources=[{"uri": ROOT}])
    loop.ingest()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", held.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(held.key_file(tmp_path / "key.json")))
    return loop


def test_a_signed_url_gets_the_object_and_nothing_else_does(photos: Loop, held: Google) -> None:
    links = links_of(photos, url_hours=2)
    assert fetch(links["a b+ü.png"]) == (200, picture(1), "image/png")
    link = links["c.png"]
    assert fetch(link)[:2] == (200, picture(2))
    assert held.signed == 0  # the key is at hand
    assert fetch(link.replace("c.png", "a%20b%2B%C3%BC.png"))[1] == b"SignatureDoesNotMatch"
    assert fetch(link.replace("X-Goog-Expires=7200", "X-Goog-Expires=9000"))[0] == 403
    assert valid_until(link) == pytest.approx(time.time() + 7200, abs=30)
    held.later = timedelta(hours=3)
    assert fetch(link)[1] == b"expired"


def test_a_link_is_valid_for_seven_days_where_that_is_asked_for(photos: Loop, held: Google) -> None:
    link = links_of(photos, url_hours=168)["c.png"]
    held.later = timedelta(days=7, minutes=-5)
    assert fetch(link)[0] == 200


def test_an_object_that_was_overwritten_is_not_shown_in_the_place_of_another(
    photos: Loop, held: Google
) -> None:
    link = links_of(photos)["c.png"]
    held.objects["photos/in/c.png"] = (picture(9), "999")
    assert fetch(link)[0] == 404


def in_a_pod(held: Google, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program as in a pod with Workload Identity: there is a metadata server, and no key."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "GOOGLE_APPLICATION_CREDENTIALS"
    }
    host = held.url.removeprefix("http://")
    environment |= {
        "GCE_METADATA_HOST": host,
        "GCE_METADATA_IP": host,
        "STORAGE_EMULATOR_HOST": held.url,
        "VISIONLOOP_GOOGLE_APIS": held.url,
        "CLOUDSDK_CONFIG": "/nonexistent",
        "HOME": "/nonexistent",
    }
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


LINKS = """
import json, sys
from visionloop.config import load_config
from visionloop.labeling.media.links import image_links
from visionloop.lake import Lake
config = load_config(sys.argv[1])
lake = Lake.open(config.lake, loop=config.name)
print(json.dumps(image_links(config, lake, lake.media())))
"""


def test_with_workload_identity_google_signs(photos: Loop, held: Google) -> None:
    held.busy = 1
    done = in_a_pod(held, LINKS, config_of(photos).text())
    assert done.returncode == 0, done.stderr
    links = json.loads(done.stdout)
    assert held.signed == 2
    for link in links.values():
        assert ACCOUNT.replace("@", "%40") in link
        assert fetch(link)[0] == 200
    # A key of Google's rotates: what it signed may end before its time.
    assert "sure to be valid for 12 hours" in done.stderr


def test_without_the_right_to_sign_the_error_names_it(photos: Loop, held: Google) -> None:
    held.may_sign = False
    done = in_a_pod(held, LINKS, config_of(photos).text())
    assert "lacks iam.serviceAccounts.signBlob on itself" in done.stderr
    assert f"gcloud iam service-accounts add-iam-policy-binding {ACCOUNT}" in done.stderr
    held.may_sign = "IAM Service Account Credentials API has not been used in project 1 before"
    done = in_a_pod(held, LINKS, config_of(photos).text())
    assert "gcloud services enable iamcredentials.googleapis.com" in done.stderr


def test_a_persons_own_credentials_cannot_sign(
    photos: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "mine.json"))
    with pytest.raises(InputError, match="belong to no service account") as caught:
        links_of(photos)
    assert "--impersonate-service-account" in caught.value.remedy


def test_what_no_signed_url_shows_goes_through_the_endpoint(
    tmp_path: Path, bucket: Bucket, held: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        info = tarfile.TarInfo("inside.png")
        info.size = len(picture(3))
        tar.addfile(info, io.BytesIO(picture(3)))
    bucket.put("in/a.png", picture(1))
    bucket.put("in/b.tif", tiff())
    bucket.put("tars/more.tar", into.getvalue())
    loop = Loop(
        tmp_path, sources=[{"uri": ROOT}, {"uri": "gs://photos/tars/more.tar", "kind": "tar"}]
    )
    loop.ingest()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(held.key_file(tmp_path / "key.json")))
    monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", KEY)
    media = {uri.rpartition("/")[2]: sample for sample, uri in loop.lake.media().items()}
    config = config_of(loop, media_url="https://images.example/loop")
    links = image_links(config, loop.lake, loop.lake.media())
    assert "X-Goog-Signature" in links[media["a.png"]]
    for name in ("b.tif", "inside.png"):
        assert links[media[name]].startswith(f"https://images.example/loop/media/{media[name]}?")
    with pytest.raises(InputError, match="2 of 3 images") as caught:
        image_links(config_of(loop), loop.lake, loop.lake.media())
    assert "labeling.label_studio.media_url" in caught.value.remedy
    with pytest.raises(InputError, match="2 of 3 images"):
        image_links(config_of(loop, media="signed"), loop.lake, loop.lake.media())


def test_files_go_through_the_endpoint_with_the_newest_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    loop.put("a.png", picture(1))
    loop.ingest()
    (sample,) = loop.lake.media()
    monkeypatch.delenv("VISIONLOOP_MEDIA_KEY", raising=False)
    config = config_of(loop, media_url="https://images.example/", url_hours=1)
    with pytest.raises(InputError, match="no key") as caught:
        image_links(config, loop.lake, loop.lake.media())
    assert caught.value.where == "VISIONLOOP_MEDIA_KEY"
    monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", "too-short")
    with pytest.raises(InputError, match="fewer than 16"):
        image_links(config, loop.lake, loop.lake.media())
    monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", f"{KEY} {KEY}-before")
    link = image_links(config, loop.lake, loop.lake.media())[sample]
    place, _, query = link.partition("?")
    assert place == f"https://images.example/media/{sample}"
    now = time.time()
    assert valid_until(link) == pytest.approx(now + 3600, abs=30)
    assert Keys((KEY.encode(),)).refusal(sample, query, now) == ""
    assert Keys((b"another-key-of-sixteen", KEY.encode())).refusal(sample, query, now) == ""
    assert Keys((b"another-key-of-sixteen",)).refusal(sample, query, now) == "forged"
    assert Keys((KEY.encode(),)).refusal(sample, query, now + 3700) == "expired"
    assert Keys((KEY.encode(),)).refusal("0" * 64, query, now) == "forged"


@pytest.mark.parametrize(
    "query",
    ["", "expires=1", "signature=00", "expires=-1&signature=0", "expires=1e9&signature=0",
     "expires=9999999999999&signature=0", "expires=1&expires=2&signature=0", "&" * 99,
     "expires=\u0661&signature=0"],
)  # fmt: skip
def test_what_is_no_link_is_unsigned(query: str) -> None:
    assert Keys((KEY.encode(),)).refusal("0" * 64, query, 0.0) == "unsigned"


def test_the_endpoint_without_an_address_is_refused(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.put("a.png", picture(1))
    loop.ingest()
    with pytest.raises(InputError) as caught:
        links_of(loop, media="endpoint")
    assert caught.value.where == "labeling.label_studio.media_url"
    with pytest.raises(InputError, match=r"1 of 1 images: .* is a file"):
        links_of(loop)


def test_a_few_small_images_can_stand_in_the_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    loop.put("a.png", picture(1))
    loop.put("b.tif", tiff())
    loop.ingest()
    media = {uri.rpartition("/")[2]: sample for sample, uri in loop.lake.media().items()}
    config = config_of(loop, media="inline")
    links = image_links(config, loop.lake, loop.lake.media())
    kind, _, text = links[media["a.png"]].partition(",")
    assert (kind, base64.b64decode(text)) == ("data:image/png;base64", picture(1))
    kind, _, text = links[media["b.tif"]].partition(",")
    assert kind == "data:image/png;base64"
    assert valid_until(links[media["a.png"]]) == float("inf")
    from visionloop.labeling.media import links as module

    monkeypatch.setattr(module, "INLINE_BYTES", 100)
    with pytest.raises(InputError, match="too large to stand in a task"):
        image_links(config, loop.lake, loop.lake.media())
    monkeypatch.setattr(module, "INLINE_IMAGES", 1)
    with pytest.raises(InputError, match="2 images are too many"):
        image_links(config, loop.lake, loop.lake.media())


def test_an_image_that_was_replaced_does_not_stand_in_a_task(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    path = loop.put("a.png", picture(1))
    loop.ingest()
    path.write_bytes(picture(2))
    with pytest.raises(Exception, match="replaced after its ingest"):
        links_of(loop, media="inline")


def test_keys_and_secrets_are_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from visionloop import environment

    monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", f"{KEY} another-key-of-sixteen")
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", "secret-of-the-webhook")
    assert {KEY, "another-key-of-sixteen", "secret-of-the-webhook"} <= set(environment.secrets())
