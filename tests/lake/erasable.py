"""A lake in which every table, version, spool and folder holds something of every sample."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visionloop.cli import main
from visionloop.lake import Lake
from visionloop.lake.erasing.work import Erasure, erase
from visionloop.serving.erasing import LoggedEvents
from visionloop.serving.harvesting import harvest_events, see
from visionloop.serving.segments import Position, Reader, find

THEN = datetime(2026, 5, 1, tzinfo=UTC)
MODEL = "loop-0001"
SPACE = "pixels_00"


def picture(number: int) -> bytes:
    """Return the bytes of a picture, which differ from every other's."""
    return b"\xff\xd8\xff\xe0" + np.random.default_rng(number).bytes(400)


def identity(number: int) -> str:
    """Return the id of a sample."""
    return hashlib.sha256(picture(number)).hexdigest()


def vector(number: int) -> np.ndarray:
    """Return the vector of a sample, float32 [8], of length 1."""
    x = np.random.default_rng(100 + number).normal(size=8)
    return (x / np.linalg.norm(x)).astype(np.float32)


def make(root: Path, *, n: int = 5, loop: str = "test", catalog: str = "") -> Lake:
    """Fill a lake with samples 0 to n - 1.

    Args:
        root: Folder that the lake is made in, and the source.
        n: Number of samples.
        loop: Name of its loop.
        catalog: Its catalog.
    """
    lake = Lake.open(str(root / "lake"), loop=loop, catalog=catalog)
    source = root / "source"
    source.mkdir(exist_ok=True)
    ids = [identity(number) for number in range(n)]
    uris = [f"file://{source}/camera%20{number}.jpg" for number in range(n)]
    for number in range(n):
        (source / f"camera {number}.jpg").write_bytes(picture(number))
        # Half of them were copied.
        copy = Path(lake.path("media", ids[number][:2], f"{ids[number]}.jpeg")[len("file://") :])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(picture(number))
    _ingest(lake, ids, uris)
    _learn(lake, ids)
    _log(lake, n)
    _leave(lake, ids, uris)
    return lake


def _ingest(lake: Lake, ids: list[str], uris: list[str]) -> None:
    # In two runs: the first version holds the first sample alone.
    for some in (slice(0, 1), slice(1, None)):
        mine, at = ids[some], uris[some]
        with lake.run(stage="ingest", run_id="run-1") as run:
            size = [404] * len(mine)
            run.append(
                "files",
                pa.table(
                    {
                        "uri": at,
                        "generation": ["1"] * len(at),
                        "size": size,
                        "state": ["ok"] * len(at),
                        "sample_id": mine,
                        "source": [at[0].rpartition("/")[0]] * len(at),
                    }
                ),
            )
            copies = [lake.path("media", one[:2], f"{one}.jpeg") for one in mine]
            run.append(
                "samples",
                pa.table(
                    {
                        "sample_id": mine,
                        "uri": copies,
                        "source_uri": at,
                        "split": ["pool"] * len(mine),
                    }
                ),
            )
            thumbs = [b"\xff\xd8thumb" + one.encode()[::-1] for one in mine]
            run.append("thumbnails", pa.table({"sample_id": mine, "image": thumbs}))
            run.append("metadata", pa.table({"sample_id": mine, "raw": ["{}"] * len(mine)}))
            run.append("checks", pa.table({"subject": mine, "generation": [""] * len(mine)}))
            run.append_embeddings(SPACE, mine, np.stack([vector(ids.index(one)) for one in mine]))
            run.commit(counts={"in": len(mine), "ok": len(mine)}, outputs={"first": mine[0]})


def _learn(lake: Lake, ids: list[str]) -> None:
    n = len(ids)
    with lake.run(stage="train", run_id="run-2") as run:
        run.append(
            "labels", pa.table({"sample_id": ids, "label": ["cat"] * n, "origin": ["csv"] * n})
        )
        run.append(
            "label_requests",
            pa.table(
                {"sample_id": ids, "provider": ["label-studio"] * n, "purpose": ["training"] * n,
                 "external_id": [f"task-{i}" for i in range(n)]}
            ),
        )  # fmt: skip
        told = [
            {"sample_id": one, "provider": "label-studio", "external_id": f"a{i}", "label": "cat",
             "annotator": "alice", "state": "done", "updated_at": THEN}
            for i, one in enumerate(ids)
        ]  # fmt: skip
        run.append("annotations", pa.Table.from_pylist(told))
        run.append("relabels", pa.table({"sample_id": ids, "rank": range(n), "label": ["cat"] * n}))
        run.append("predictions", pa.table({"sample_id": ids, "model_id": [MODEL] * n}))
        picks = {
            "sample_id": ids,
            "arm": ["selected"] * n,
            "nearest_chosen": [*ids[1:], None],
            "nearest_distance": [0.5] * (n - 1) + [None],
        }
        run.append("selections", pa.table(picks))
        run.append("named_selections", pa.table(picks | {"name": ["mine"] * n}))
        rows = [[one, "cat"] for one in ids]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        run.append(
            "training_sets",
            pa.table(
                {"training_set": [digest] * n, "sample_id": ids, "label": ["cat"] * n,
                 "position": list(range(n))}
            ),
        )  # fmt: skip
        run.append(
            "experiments",
            pa.table(
                {"model_id": [MODEL], "arm": ["random"], "training_set": [digest],
                 "n_labels": [n], "state": ["in_service"]}
            ),
        )  # fmt: skip
        told = json.dumps({"seen": ids, "short": f"{ids[0][:12]}…"})
        run.append("decisions", pa.table({"decision": ["watch"], "inputs": [told]}))
        run.append(
            "flags",
            pa.table(
                {"subject": ids, "subject_type": ["sample"] * n, "kind": ["near_duplicate"] * n,
                 "evidence": [json.dumps({"of": other, "images": [one, other]})
                              for one, other in zip(ids, [*ids[1:], ids[0]], strict=True)]}
            ),
        )  # fmt: skip
        run.commit()


def line(number: int, kind: str, event: str, body: bytes) -> bytes:
    """Return a line of the collector's.

    Args:
        number: Of the sample.
        kind: ``request`` or ``response``.
        event: Its ``ce-id``.
        body: The payload.
    """
    headers = {
        "ce-id": event,
        "ce-type": f"org.kubeflow.serving.inference.{kind}",
        "ce-time": f"2026-05-01T00:00:{number:02d}Z",
        "content-type": "application/json",
    }
    record = {
        "received_at": f"2026-05-01T00:00:{number:02d}Z",
        "headers": headers,
        "body_b64": base64.b64encode(body).decode(),
    }
    return json.dumps(record).encode() + b"\n"


def exchange(number: int) -> list[bytes]:
    """Return the lines of a request with a sample's picture, and of its answer."""
    asked = {"instances": [{"b64": base64.b64encode(picture(number)).decode()}]}
    answer = {"predictions": [[0.25 + number / 100, 0.75 - number / 100]]}
    return [
        line(number, "request", f"e{number}", json.dumps(asked).encode()),
        line(number, "response", f"e{number}", json.dumps(answer).encode()),
    ]


def _log(lake: Lake, n: int) -> None:
    folder = Path(lake.path("events")[len("file://") :])
    folder.mkdir(parents=True, exist_ok=True)
    lines = [one for number in range(n) for one in exchange(number)]
    (folder / "a.events.jsonl").write_bytes(b"".join(lines[: n // 2 * 2]))
    (folder / "b.events.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[n // 2 * 2 :])))
    seen, ledger = [], []
    for info in find(lake.path("events")):
        reader = Reader(info, Position())
        seen += [see(event) for event in reader.events()]
        at = reader.position
        ledger.append({"uri": info.uri, "bytes_read": at.bytes_read, "lines_read": at.lines_read})
    found = harvest_events(seen, [], orphaned_before=THEN)
    with lake.run(stage="harvest", run_id="run-3") as run:
        run.append("harvest_events", found.new_events)
        run.append("confidences", found.new_confidences)
        run.append("harvest_ledger", pa.Table.from_pylist(ledger))
        run.commit()


def _leave(lake: Lake, ids: list[str], uris: list[str]) -> None:
    """Leave files as stages do, and a write that was killed."""
    root = Path(lake.uri[len("file://") :])
    rows = "".join(
        f"{one},{uri[7:].replace('%20', ' ')},training,\n"
        for one, uri in zip(ids, uris, strict=True)
    )
    for path, text in {
        f"label_requests/{lake.loop}-0000.csv": "sample_id,file,purpose,label\n" + rows,
        f"reports/{lake.loop}.html": f"<img alt='{ids[0]}'>",
        # A page of an earlier visionloop, with a picture made anew: nothing names the sample.
        "report.html": "<img src='data:image/jpeg;base64,YQ=='>",
        f"training/{lake.loop}/m1/plan.json": "{}",
        f"failures/{lake.loop}/20260501T000000.000000Z-infer-0.json": json.dumps(
            {"stage": "infer", "what": f"{uris[0]} cannot be read"}
        ),
        f"label_requests/.{lake.loop}-0000.csv.abcdefgh": ids[0],
        f"outbox/{lake.loop}/1-default-{'0' * 32}.json": json.dumps({"subject": ids[0]}),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    pq.write_table(
        pa.table({"sample_id": ids, "uri": uris}), root / f"training/{lake.loop}/m1/samples.parquet"
    )
    shard = root / "shards" / lake.loop / "ingest-1.part.parquet"
    shard.parent.mkdir(parents=True, exist_ok=True)
    raw = pa.array([bytes.fromhex(one) for one in ids], pa.binary(32))
    pq.write_table(pa.table({"sample": raw}), shard, compression="zstd")
    try:
        with lake.run(stage="infer") as run:
            run.append("predictions", pa.table({"sample_id": ids[:1], "model_id": ["lost"]}))
            raise RuntimeError
    except RuntimeError:
        pass


def content(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table of the newest version."""
    return {
        name: lake.read(name).to_pylist()
        for name in lake._version(None).tables
        if not name.startswith("embeddings_")
    }


def small(root: Path | str, loop: str = "test", catalog: str = "") -> Lake:
    """Make a lake with little in it: two versions of two tables, copies.

    Args:
        root: Folder or bucket that the lake is made in.
        loop: Name of its loop.
        catalog: Its catalog.
    """
    lake = Lake.open(f"{root}/lake", loop=loop, catalog=catalog)
    for number in range(2):
        with lake.run(stage="ingest") as run:
            name = identity(number)
            rows = {"uri": [f"file:///camera/{number}.jpg"], "state": ["ok"], "sample_id": [name]}
            run.append("files", pa.table(rows))
            run.append_embeddings(SPACE, [name], vector(number)[None])
            run.commit()
        lake.storage.write(lake.path("media", name[:2], f"{name}.jpeg"), picture(number))
    return lake


def rest(lake: Lake) -> tuple[list[str], list[str]]:
    """Return what a small lake holds."""
    lake = Lake.open(lake.uri, loop=lake.loop)
    return sorted(lake.read("files")["sample_id"].to_pylist()), lake.embeddings(SPACE)[0]


def erase_all(lake: Lake, *ids: str, **options: Any) -> Erasure:
    """Erase samples from a lake of one loop."""
    return erase([lake], ids, [LoggedEvents(lake.path("events"))], **options)


def command(capsys: pytest.CaptureFixture[str], lake: Lake, *options: str) -> tuple[int, str]:
    """Run the command; returns its exit status and what it printed."""
    status = main(["erase", "--lake", lake.uri, "--loop", lake.loop, *options])
    return status, capsys.readouterr().out
