"""Logged requests as a source: the images that were sent, under the ids that confidences have."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionloop.lake.storage import normalise
from visionloop.media.sources import CONTAINER, Member, open_source
from visionloop.serving.requests import decode_request, request_images
from visionloop.source_config import SourceConfig
from visionloop.stages import sources as _opened_by_stages  # noqa: F401


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, "JPEG")
    return target.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def v1(*images: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": b64(image)} for image in images]}).encode()


def v2(*images: bytes) -> bytes:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    return json.dumps({"inputs": [{**tensor, "data": [b64(one) for one in images]}]}).encode()


def v2_binary(*images: bytes) -> bytes:
    raw = b"".join(len(one).to_bytes(4, "little") + one for one in images)
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    return json.dumps({"inputs": [tensor]}).encode() + raw


def line(body: bytes, kind: str = "request", **more: Any) -> bytes:
    headers = {
        "ce-id": more.pop("event_id", "e1"),
        "ce-type": f"org.kubeflow.serving.inference.{kind}",
        "ce-inferenceservicename": "clothing",
        "ce-namespace": "shop",
        "ce-time": "2026-05-01T10:00:00Z",
    }
    record = {"received_at": "2026-05-01T10:00:01Z", "headers": headers, "body_b64": b64(body)}
    return json.dumps({**record, **more}).encode() + b"\n"


def taken(folder: Path, **settings: Any) -> list[Member]:
    source = open_source(SourceConfig(uri=str(folder), kind="events", **settings))
    entries = list(source.entries())
    assert {entry.role for entry in entries} <= {CONTAINER}
    return [member for entry in entries for member in source.members(entry)]


def test_every_way_to_send_an_image_gives_its_bytes(tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(6)]
    bodies = [v1(images[0], images[1]), v2(images[2]), v2_binary(images[3]), images[4]]
    path = tmp_path / "a.events.jsonl"
    path.write_bytes(b"".join(map(line, bodies)))
    packed = tmp_path / "b.events.jsonl.gz"
    packed.write_bytes(gzip.compress(line(gzip.compress(v1(images[5])))))
    found = taken(tmp_path)
    assert [member.data for member in found] == images
    assert all(member.keep and not member.unreadable for member in found)
    uri = normalise(path)
    assert [member.entry.info.uri for member in found][:3] == [
        f"{uri}!/00000001-0", f"{uri}!/00000001-1", f"{uri}!/00000002-0",
    ]  # fmt: skip
    assert found[0].entry.values == {
        "event_id": "e1",
        "endpoint": "clothing",
        "namespace": "shop",
        "requested_at": datetime(2026, 5, 1, 10, tzinfo=UTC).isoformat(),
    }
    assert not any(member.entry.values for member in taken(tmp_path, metadata="none"))
    # The harvest names the same images by the same ids.
    for body in bodies:
        sent, problem = request_images(body)
        ids = tuple(hashlib.sha256(image or b"").hexdigest() for image in sent)
        assert (decode_request(body).samples, problem) == (ids, "")


def test_requests_without_pixels_are_counted(tmp_path: Path) -> None:
    tensor = json.dumps({"instances": [[[[1, 2, 3]]]]}).encode()
    lines = [
        line(b"", body_sha256="0" * 64, request={"samples": ["1" * 64], "tensors": [None]}),
        line(tensor),
        line(b"no request"),
        line(b"", kind="response"),
        b"{no line}\n",
        line(v1(picture(0))),
    ]
    (tmp_path / "a.events.jsonl").write_bytes(b"".join(lines))
    found = taken(tmp_path)
    assert [member.unreadable for member in found] == [
        "no_pixels", "no_image", "no_image", "bad_event", "",
    ]  # fmt: skip
    assert [bool(member.data) for member in found] == [False] * 4 + [True]
    assert len({member.entry.info.uri for member in found}) == 5


def test_the_blob_loggers_objects_are_read(tmp_path: Path) -> None:
    images = [picture(1), picture(2)]
    record = {
        "reqType": "org.kubeflow.serving.inference.request",
        "id": "e9",
        "inferenceService": "clothing",
        "occurrenceTime": "2026-05-01T10:00:00Z",
    }
    one = tmp_path / "ns" / "e9-request.json"
    one.parent.mkdir()
    one.write_text(json.dumps([{**record, "bytes": b64(v1(image))} for image in images]))
    found = taken(tmp_path)
    assert [member.data for member in found] == images
    assert [member.entry.values["event_id"] for member in found] == ["e9", "e9"]


def test_a_batch_of_events_in_one_line_keeps_its_images_apart(tmp_path: Path) -> None:
    images = [picture(1), picture(2)]
    events = [
        {
            "specversion": "1.0",
            "id": f"e{number}",
            "type": "org.kubeflow.serving.inference.request",
            "data_base64": b64(v1(image)),
        }
        for number, image in enumerate(images)
    ]
    headers = {"content-type": "application/cloudevents-batch+json"}
    record = {"headers": headers, "body_b64": b64(json.dumps(events).encode())}
    (tmp_path / "a.events.jsonl").write_text(json.dumps(record) + "\n")
    found = taken(tmp_path)
    assert [member.data for member in found] == images
    assert [m.entry.info.uri.rpartition("!/")[2] for m in found] == ["00000001-0", "00000001-1"]


def test_a_line_that_is_still_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "a.events.jsonl"
    second = line(v1(picture(1)))
    path.write_bytes(line(v1(picture(0))) + second[:50])
    assert len(taken(tmp_path)) == 1
    path.write_bytes(line(v1(picture(0))) + second)
    assert len(taken(tmp_path)) == 2
