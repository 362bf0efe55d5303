"""What is written into a labelling tool's tasks so that people's browsers can load the images.

===============  ================================================================================
``signed``       a V4 signed URL of the object in Cloud Storage, see `signing`
``endpoint``     a link to `visionloop labels media`, see `signatures`
``inline``       the image itself, as a ``data:`` URI
===============  ================================================================================

``auto`` takes ``signed`` for objects in ``gs://`` that browsers show, and ``endpoint`` for what is
left: files, members of tars, TIFFs.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from visionloop.errors import InputError, VisionloopError
from visionloop.labeling.media.showing import content_type_of_format, show
from visionloop.labeling.media.signatures import Keys
from visionloop.labeling.media.signing import SURE_HOURS, Signer, Wanted

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.labeling.config import LabelStudioConfig
    from visionloop.lake import Lake

INLINE_IMAGES, INLINE_BYTES = 200, 200_000
_FIELD = "labeling.label_studio.media"
SET_MEDIA_URL = (
    "Set labeling.label_studio.media_url to the address of `visionloop labels media`, as "
    "browsers reach it"
)


def image_links(config: LoopConfig, lake: Lake, media: Mapping[str, str]) -> dict[str, str]:
    """Return what a browser loads each image from.

    Args:
        config: The loop's configuration; `labeling.label_studio` says how.
        lake: Its lake.
        media: Where each sample lies, by its id.

    Returns:
        A link by sample id, valid for `labeling.label_studio.url_hours`; see `valid_until`.

    Raises:
        InputError: There is no way for some of them, or a key or a right is missing.
        VisionloopError: Google does not answer, or an image cannot be read.
    """
    chosen = config.labeling.label_studio
    if not media:
        return {}
    if chosen.media == "inline":
        return _inline(lake, media)
    if chosen.media == "endpoint":
        return _endpoint(chosen, media)
    signable, others = _signable(lake, media)
    if others and chosen.media == "signed":
        raise _unsignable(others, media, "Set it to auto, or to endpoint")
    if others and not chosen.media_url:
        raise _unsignable(
            others, media, f"{SET_MEDIA_URL}; or set {_FIELD} to inline for a few small ones"
        )
    links = _signed(chosen, signable)
    if others:
        links |= _endpoint(chosen, others)
    return {sample: links[sample] for sample in media}


def valid_until(link: str) -> float:
    """Return until when a link is valid, in seconds since 1970; infinite where it is the image.

    Args:
        link: As from `image_links`.

    Raises:
        InputError: It is none of ours.
    """
    if link.startswith("data:"):
        return float("inf")
    values = {name: found[0] for name, found in parse_qs(urlsplit(link).query).items()}
    try:
        if "expires" in values:
            return float(values["expires"])
        signed = datetime.strptime(values["X-Goog-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
        return signed.timestamp() + float(values["X-Goog-Expires"])
    except (KeyError, ValueError):
        raise InputError("no link to an image of ours", where=link.partition("?")[0]) from None


def _signable(lake: Lake, media: Mapping[str, str]) -> tuple[dict[str, Wanted], dict[str, str]]:
    """Return the objects that a signed URL can lead browsers to, and why none can to others."""
    from visionloop.lake.storage import is_member, scheme_of

    objects, others = [], {}
    for sample, uri in media.items():
        if is_member(uri):
            others[sample] = "lies in a tar"
        elif scheme_of(uri) != "gs":
            others[sample] = "is a file"
        else:
            objects.append(sample)
    formats = _formats(lake, objects)
    shown = []
    for sample in objects:
        form = formats.get(sample, "")
        if content_type_of_format(form):
            shown.append(sample)
        else:
            others[sample] = f"is a {form}, which browsers do not show" if form else "is unknown"
    generations = _generations(lake, media, shown)
    return {
        sample: Wanted(
            media[sample], generations.get(sample, ""), content_type_of_format(formats[sample])
        )
        for sample in shown
    }, others


def _unsignable(others: Mapping[str, str], media: Mapping[str, str], remedy: str) -> InputError:
    sample, why = next(iter(others.items()))
    more = f", and {len(others) - 1} more are like it" if len(others) > 1 else ""
    return InputError(
        f"no signed URL of a bucket can lead browsers to {len(others)} of {len(media)} images: "
        f"{media[sample]} {why}{more}",
        where=_FIELD,
        remedy=remedy,
    )


def _formats(lake: Lake, samples: list[str]) -> dict[str, str]:
    from visionloop.media.records import among, some_at_a_time

    found: dict[str, str] = {}
    for some in some_at_a_time(samples):
        table = lake.read(
            "samples", columns=["sample_id", "format"], where=among("sample_id", some)
        )
        formats = table["format"].to_pylist()
        found |= dict(zip(table["sample_id"].to_pylist(), formats, strict=True))
    return {sample: form or "" for sample, form in found.items()}


def _generations(lake: Lake, media: Mapping[str, str], samples: list[str]) -> dict[str, str]:
    """Return the generation that each sample was ingested from, where it is read from there."""
    from visionloop.media.records import among, some_at_a_time

    own = lake.path("media") + "/"  # never overwritten
    found: dict[str, str] = {}
    columns = ["uri", "generation", "sample_id"]
    for some in some_at_a_time([s for s in samples if not media[s].startswith(own)]):
        for row in lake.read("files", columns=columns, where=among("sample_id", some)).to_pylist():
            if row["uri"] == media[row["sample_id"]]:
                found[row["sample_id"]] = max(
                    found.get(row["sample_id"], ""), row["generation"] or "", key=_as_number
                )
    return found


def _as_number(generation: str) -> int:
    from visionloop.lake.storage.interface import stored_generation

    own = stored_generation(generation)
    return int(own) if own.isdigit() else -1


def _signed(chosen: LabelStudioConfig, wanted: Mapping[str, Wanted]) -> dict[str, str]:
    from visionloop.progress import log

    if not wanted:
        return {}
    signer = Signer()
    if signer.by_google and chosen.url_hours > SURE_HOURS:
        log(
            f"labels: links signed by Google for {signer.account} are sure to be valid for "
            f"{SURE_HOURS:g} hours, not for the {chosen.url_hours:g} of "
            "labeling.label_studio.url_hours: a key file's, and the media endpoint's, are"
        )
    links = signer.sign(wanted.values(), chosen.url_hours)
    return dict(zip(wanted, links, strict=True))


def _endpoint(chosen: LabelStudioConfig, samples: Iterable[str]) -> dict[str, str]:
    if not chosen.media_url:
        raise InputError(
            "images are to come from the media endpoint, and its address is not known",
            where="labeling.label_studio.media_url",
            remedy=SET_MEDIA_URL,
        )
    keys = Keys.of_environment()
    expires = int(time.time() + chosen.url_hours * 3600)
    return {sample: keys.link(chosen.media_url, sample, expires) for sample in samples}


def _inline(lake: Lake, media: Mapping[str, str]) -> dict[str, str]:
    from visionloop.lake.identity import is_sample
    from visionloop.monitoring.media_reading import read_media

    instead = "Set it to auto or endpoint: images are then loaded when somebody looks at them"
    if len(media) > INLINE_IMAGES:
        raise InputError(
            f"{len(media)} images are too many to stand in the tasks themselves: "
            f"{INLINE_IMAGES} at most",
            where=_FIELD,
            remedy=instead,
        )
    samples: dict[str, list[str]] = {}
    for sample, uri in media.items():
        samples.setdefault(uri, []).append(sample)
    links: dict[str, str] = {}
    for uri, data in read_media(lake, samples):
        if not isinstance(data, bytes):
            raise data
        shown = show(data)
        if len(shown.data) > INLINE_BYTES:
            raise InputError(
                f"an image of {len(shown.data)} bytes is too large to stand in a task itself: "
                f"{INLINE_BYTES} at most ({uri})",
                where=_FIELD,
                remedy=instead,
            )
        text = base64.b64encode(shown.data).decode()
        for sample in samples[uri]:
            if not is_sample(sample, data):
                raise VisionloopError(
                    "the file was replaced after its ingest",
                    where=uri,
                    remedy="Run an intake, which finds its new bytes, or bring the old ones back",
                )
            links[sample] = f"data:{shown.content_type};base64,{text}"
    return {sample: links[sample] for sample in media}
