"""Images of logged requests as a source: what production was asked about becomes samples.

Only what was logged with its body has pixels (`visionloop collect --keep bodies`, KServe's blob
logger). A sample's id is the SHA-256 of the image's bytes, and so equal to the column `sample_id`
of `confidences`: an image that is taken in here has its production answers already.

Each image of a request is a member of its file of events, ``<file>!/<line>-<number>``. A request
whose body was not kept, or that carried a tensor, is counted as unreadable with a reason, once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from visionloop.lake.anywhere import Anywhere
from visionloop.lake.storage import INSIDE, normalise
from visionloop.media.sources.entries import CONTAINER, MEDIA, Entry, Member
from visionloop.serving.events import Event
from visionloop.serving.requests import request_images
from visionloop.serving.segments import Position, Reader, find

if TYPE_CHECKING:
    from visionloop.source_config import SourceConfig


class LoggedImages:
    """The images of requests in files of events.

    Args:
        source: Its configuration.
    """

    def __init__(self, source: SourceConfig) -> None:
        self.root = normalise(source.uri)
        self.storage = Anywhere()
        self._values = source.metadata != "none"

    def entries(self) -> Iterator[Entry]:
        """Yield the files of events, in the order of their URIs."""
        for info in find(self.root):
            yield Entry(info, CONTAINER)

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """Yield the images of a file's requests, in their order."""
        for place, member in enumerate(self._members(entry)):
            if place >= skip:
                yield member

    def _members(self, entry: Entry) -> Iterator[Member]:
        line = number = 0
        for event in Reader(entry.info, Position()).events():
            # A line may hold a batch of events.
            number = number if event.line == line else 0
            line = event.line
            for data, reason, detail in _images(event):
                name = f"{line:08d}-{number}"
                number += 1
                info = dataclasses.replace(
                    entry.info, uri=f"{entry.info.uri}{INSIDE}{name}", size=len(data or b"")
                )
                found = Entry(info, MEDIA, values=self._said(event) if data else {})
                yield Member(found, data, keep=True, unreadable=reason, detail=detail)

    def _said(self, event: Event) -> dict[str, Any]:
        """Return what is known of a request, as metadata of its images."""
        if not self._values:
            return {}
        said = {
            "event_id": event.event_id,
            "endpoint": event.service,
            "namespace": event.namespace,
            "requested_at": event.occurred_at.isoformat() if event.occurred_at else "",
            # Of a draw alone: an estimate on what was kept weighs each by the inverse of this.
            "keep_rate": event.kept.rate if event.kept else 0.0,
        }
        return {name: value for name, value in said.items() if value}


def _images(event: Event) -> Iterator[tuple[bytes | None, str, str]]:
    """Yield ``(image, why there is none, the same for a person)`` for each row of a request."""
    if event.problem:
        yield None, "bad_event", event.problem
    elif event.kind != "request":
        return
    elif event.kept is not None and not event.body:
        if not event.kept.images:
            yield None, "no_pixels", "the collector kept hashes, not the body"
        for image in event.kept.images:
            if image is None:
                yield None, "no_pixels", "the redaction kept nothing of it"
            else:
                yield image, "", ""
    else:
        images, problem = request_images(event.body, event.content_type)
        if problem:
            yield None, "no_image", problem
        for image in images:
            if image is None:
                yield None, "no_image", "a tensor was sent, no encoded image"
            else:
                yield image, "", ""
