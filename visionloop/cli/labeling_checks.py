"""Checks of how a loop is labelled: Label Studio, and whether browsers get the images."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionloop import environment
from visionloop.cli.checks import Finding, attempt
from visionloop.errors import InputError, VisionloopError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

_UNTOLD = "cannot tell from here"
_POD = "Run it in a pod: kubectl exec deployment/visionloop-client -- visionloop doctor --config …"
_SECONDS = 10.0
_IMAGES = "images for browsers"
# Why the media endpoint refuses a link that was just made.
_REFUSED = {
    403: "Give the endpoint and the tasks the same VISIONLOOP_MEDIA_KEY, and their clocks one time",
    404: "Start the endpoint on this lake: visionloop labels media --config loop.yaml",
    410: "Run an intake: the file was overwritten or removed after it was ingested",
    502: "Let the endpoint's account read the images: its log says what it met",
    503: "Look at the endpoint's log: it does not reach the lake, or too many ask it",
}


def labeling(config: LoopConfig, *, afar: bool = False) -> Iterator[Finding]:
    """Check what a loop needs that is labelled in Label Studio, or by a class of one's own.

    Args:
        config: The loop's configuration.
        afar: Whether pods do the work and this machine is none: what only they know, or reach,
            cannot be told then.

    Yields:
        One finding a check; none where the loop is labelled elsewhere.
    """
    if ":" in config.labeling.provider:
        yield _own_tool(config.labeling.provider, afar)
    if config.labeling.provider != "label_studio":
        return
    check = f"Label Studio {config.labeling.label_studio.url}"
    if afar and not environment.labelstudio_token():
        yield Finding(check, "warn", f"{_UNTOLD}: its token is in the Secret visionloop", _POD)
    else:
        yield _softened(attempt(check, lambda: _server(config)), afar)
    yield _softened(attempt(_IMAGES, lambda: _images(config, afar=afar)), afar)
    secret = environment.webhook_secret()
    if secret:
        from visionloop.serving.label_webhook import SHORTEST

        told = "its secret is there"
        if len(secret) < SHORTEST:
            remedy = "Make one with: openssl rand -hex 32"
            told = f"its secret has fewer than {SHORTEST} characters"
            yield Finding("Label Studio's webhook", "fail", told, remedy)
        else:
            yield Finding("Label Studio's webhook", "ok", told)


def _own_tool(named: str, afar: bool) -> Finding:
    from visionloop.labeling.opening import provider_class

    def look() -> str:
        provider_class(named)
        return "is there"

    found = attempt(f"labeling.provider {named}", look)
    if afar and found.state == "fail":
        return Finding(found.check, "warn", f"{_UNTOLD}: {found.found}", found.remedy)
    return found


def _softened(found: Finding, afar: bool) -> Finding:
    """Return a finding; from afar, what does not answer may answer the pods."""
    if afar and found.state == "fail" and "does not answer" in found.found:
        return Finding(found.check, "warn", f"{_UNTOLD}: {found.found}", _POD)
    return found


def _server(config: LoopConfig) -> str:
    from visionloop.labeling.label_studio.checking import check
    from visionloop.lake import Lake

    # Only its name is looked at: the check makes no lake.
    return check(config, Lake.open(config.lake, catalog=config.catalog, loop=config.name))


def _images(config: LoopConfig, *, afar: bool) -> Finding | str:
    from visionloop.labeling.media.links import image_links

    chosen = config.labeling.label_studio
    keyless = not environment.media_keys()
    if afar and keyless and (chosen.media == "endpoint" or chosen.media_url):
        return Finding(
            _IMAGES, "warn", f"{_UNTOLD}: the key of links is in the Secret visionloop", _POD
        )
    lake = _lake(config)
    sample = _some_sample(lake) if lake else None
    if lake is None or sample is None:
        return _endpoint_alone(config)
    try:
        link = image_links(config, lake, dict([sample]))[sample[0]]
    except InputError as error:
        return Finding(_IMAGES, "fail", f"{error.what} ({error.where})", error.remedy)
    if link.startswith("data:"):
        return "stand in the tasks themselves"
    return _answers(link, bucket="X-Goog-Signature=" in link)


def _answers(link: str, *, bucket: bool) -> Finding | str:
    """Say what a browser would get by a link."""
    place = link.partition("?")[0]
    told = place if bucket else place.partition("/media/")[0]
    request = urllib.request.Request(link, headers={"Range": "bytes=0-0"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            kind = answer.headers.get("content-type", "")
            how = "by signed URL" if bucket else "by the media endpoint"
            return f"one was read {how} ({told}, {kind})"
    except urllib.error.HTTPError as error:
        words = error.read(200).decode("utf-8", "replace").strip() if not bucket else ""
        remedy = (
            "Let the account that signs read the object (roles/storage.objectViewer); one that was "
            "overwritten after its ingest is not found: run an intake"
            if bucket
            else _REFUSED.get(error.code, "Look at the endpoint's log")
        )
        found = f"{told} answers {error.code} {words}".rstrip()
        return Finding(_IMAGES, "fail", found, remedy)
    except OSError as error:
        return Finding(
            _IMAGES,
            "warn",
            f"{told} does not answer here: {getattr(error, 'reason', error)}",
            "Browsers have to reach it: start `visionloop labels media`, or correct "
            "labeling.label_studio.media_url",
        )


def _endpoint_alone(config: LoopConfig) -> Finding | str:
    """Say what can be said before there is any image."""
    from visionloop.labeling.media.links import SET_MEDIA_URL
    from visionloop.labeling.media.signatures import Keys

    chosen = config.labeling.label_studio
    if not chosen.media_url:
        files = [one.uri for one in config.sources if not one.uri.startswith("gs://")]
        if files and chosen.media in ("auto", "endpoint"):
            return Finding(_IMAGES, "fail", f"no browser reaches {files[0]}", SET_MEDIA_URL)
        return "none to try yet: the lake is empty"
    try:
        Keys.of_environment()
    except InputError as error:
        return Finding(_IMAGES, "fail", f"{error.what} ({error.where})", error.remedy)
    url = f"{chosen.media_url.rstrip('/')}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            return f"{chosen.media_url} is alive ({answer.status}); none to try yet"
    except OSError as error:
        why = getattr(error, "reason", error)
        return Finding(
            _IMAGES,
            "warn",
            f"{chosen.media_url} does not answer here: {why}",
            "Start one with: visionloop labels media --config loop.yaml",
        )


def _lake(config: LoopConfig) -> Lake | None:
    """Return the lake where there is one; a check makes none."""
    from visionloop.lake import Lake

    try:
        if config.name not in Lake.loops(config.lake, catalog=config.catalog):
            return None
    except VisionloopError:
        return None  # which the checks of the lake tell
    return Lake.open(config.lake, catalog=config.catalog, loop=config.name)


def _some_sample(lake: Lake) -> tuple[str, str] | None:
    for batch in lake.batches("samples", columns=["sample_id", "uri"]):
        if batch.num_rows:
            return batch["sample_id"][0].as_py(), batch["uri"][0].as_py()
    return None
