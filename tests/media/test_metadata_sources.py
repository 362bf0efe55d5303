"""Metadata from every origin, ingested: sidecars, tables, paths, EXIF, and where they differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.media.pictures import encoded, photograph
from tests.media.test_exif import PLACE, camera
from tests.media.test_ingest import Saved
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.lake.storage import FileInfo, normalise
from visionloop.media.metadata import parse_sidecar
from visionloop.media.metadata_table import MetadataTable
from visionloop.media.sources import open_source
from visionloop.source_config import SourceConfig
from visionloop.stages.ingest import ingest


class World:
    """A folder of pictures, and what a lake knows of each by its name."""

    def __init__(self, folder: Path, **source: Any) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        self.settings: dict[str, Any] = {
            "name": "test",
            "lake": str(folder / "lake"),
            "sources": [{"uri": str(self.source), **source}],
        }

    def put(self, name: str, data: bytes | str) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def photo(self, name: str, seed: int, **options: Any) -> Path:
        form = "JPEG" if name.endswith("jpg") else "PNG"
        return self.put(name, encoded(photograph(64, 48, seed), form, **options))

    def ingest(self) -> Any:
        self.counted = Saved(self.source.parent / "metrics")
        return ingest(config=json.dumps(self.settings), run_id="run", metrics=self.counted)

    @property
    def lake(self) -> Lake:
        return Lake.open(self.settings["lake"], loop="test")

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.lake.read(table).to_pylist()

    def known(self) -> dict[str, dict[str, Any]]:
        names = {r["sample_id"]: Path(r["source_uri"]).name for r in self.rows("samples")}
        return {names[r["sample_id"]]: r for r in self.rows("metadata")}

    def flags(self) -> dict[str, list[str]]:
        names = {r["sample_id"]: Path(r["source_uri"]).name for r in self.rows("samples")}
        return {
            f"{names[r['subject']]} {r['kind']}": json.loads(r["evidence"])["problems"]
            for r in self.rows("flags")
        }


def test_the_first_of_sidecar_table_path_and_exif_is_believed_and_differences_are_told(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, pattern="{camera}/{day:%Y-%m-%d}/{shot:int}.{}")
    world.photo("dock/2026-03-02/0001.jpg", 1, exif=camera(PLACE))
    world.put("dock/2026-03-02/0001.yaml", "weather: fog\nexif_iso: 800\ntaken_on: 2026-03-01\n")
    world.photo("dock/2026-03-02/0002.jpg", 2)
    world.photo("elsewhere.png", 3)
    world.put(
        "metadata.csv",
        "file_name,weather,camera,serial\n"
        "dock/2026-03-02/0001.jpg,rain,dock,007\n"
        "dock/2026-03-02/0002.jpg,sun,quay,12\n",
    )
    assert world.ingest().n_files == 3
    known = world.known()
    first = known["0001.jpg"]
    told = ("weather", "exif_iso", "camera", "serial", "shot", "exif_camera_serial")
    assert [first[name] for name in told] == ["fog", 800.0, "dock", "007", 1.0, "0042"]
    assert first["taken_on"].isoformat() == "2026-03-01T00:00:00+00:00"
    assert first["day"].isoformat() == "2026-03-02T00:00:00+00:00"
    assert first["exif_latitude"] == pytest.approx(50.9375)
    assert json.loads(first["raw"])["weather"] == "fog"
    second = known["0002.jpg"]
    assert [second[name] for name in told] == ["sun", None, "quay", "12", 2.0, None]
    assert world.flags() == {
        "0001.jpg metadata_conflict": [
            "column 'exif_iso': 0001.yaml says '800', EXIF '400.0'",
            "column 'weather': 0001.yaml says 'fog', the table 'rain'",
        ],
        "0002.jpg metadata_conflict": [
            "column 'camera': the table says 'quay', the path 'dock'",
        ],
        "elsewhere.png path_mismatch": [
            f"the pattern does not fit '{(world.source / 'elsewhere.png').as_uri()}'"
        ],
    }


def test_the_terminal_counts_conflicts_and_mismatches_by_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    broken = bytearray(encoded(photograph(64, 48, 1), "JPEG", exif=camera(PLACE)))
    at = broken.index(b"Exif\0\0") + 20
    broken[at : at + 4] = b"\xff" * 4  # of which Pillow warns
    world.put("dock/1.jpg", bytes(broken))
    world.photo("2.jpg", 2)
    world.put("dock/1.json", '{"camera": "quay"}')
    world.put("dock/2.json", "{")
    world.photo("dock/2.png", 3)
    world.put("metadata.csv", "file,weather\ndock/1.jpg,fog\nlost.jpg,fog\nlost.png,\n")
    command = [sys.executable, "-m", "visionloop", "ingest", "--lake", str(tmp_path / "lake")]
    command += ["--source", str(world.source), "--pattern", "{camera}/{}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0].startswith("3 files: 3 new")
    assert [line.split()[:2] for line in told[1:-1]] == [
        ["holdout:", "1"],
        ["bad_sidecar:", "1"],
        ["metadata_conflict:", "1"],
        ["path_mismatch:", "1"],
        ["unmatched_rows:", "2"],
    ]
    assert "Warning" not in done.stderr and "lost.jpg" in done.stderr


def test_a_changed_row_sidecar_or_pattern_renews_the_metadata_and_keeps_exif(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.photo("a/1.jpg", 1, exif=camera())
    world.photo("a/2.jpg", 2)
    table = world.put("metadata.jsonl", '{"file": "a/1.jpg", "weather": "sun"}\n')
    world.ingest()
    assert world.known()["1.jpg"]["weather"] == "sun"
    version = world.lake.version()
    world.ingest()
    assert world.lake.read("metadata").equals(world.lake.read("metadata", version=version))
    table.write_text(
        '{"file": "a/1.jpg", "weather": "fog"}\n{"file": "a/2.jpg", "weather": "rain"}\n'
    )
    os.utime(table, ns=(1, 1))
    assert world.ingest().n_new == 0
    known = world.known()
    assert {name: row["weather"] for name, row in known.items()} == {
        "1.jpg": "fog",
        "2.jpg": "rain",
    }
    assert known["1.jpg"]["exif_iso"] == 400.0 and known["2.jpg"]["exif_iso"] is None
    world.settings["sources"][0]["pattern"] = "{camera}/{shot:int}.jpg"
    world.ingest()
    told = {
        name: (row["weather"], row["camera"], row["shot"]) for name, row in world.known().items()
    }
    assert told == {"1.jpg": ("fog", "a", 1.0), "2.jpg": ("rain", "a", 2.0)}


def test_exif_is_left_out_where_the_source_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, metadata="sidecar")
    world.photo("a.jpg", 1, exif=camera(PLACE))
    world.photo("b.jpg", 2)
    world.put("b.yml", "weather: fog")
    world.ingest()
    assert set(world.known()) == {"b.jpg"}
    assert [r["captured_at"] is not None for r in world.rows("samples")].count(True) == 1


def test_a_sidecar_corrects_the_cameras_clock_and_a_time_zone_is_no_conflict(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    without_zone = camera()
    del without_zone.get_ifd(0x8769)[0x9011]
    world.photo("zone.jpg", 1, exif=without_zone)
    world.put("zone.json", '{"captured_at": "2026-03-02T10:12:33-05:00"}')
    world.photo("clock.jpg", 2, exif=camera())
    world.put("clock.json", '{"captured_at": "2026-03-02T10:12:33-05:00"}')
    world.ingest()
    for row in world.rows("samples"):
        assert row["captured_at"].isoformat() == "2026-03-02T15:12:33+00:00"
    assert list(world.flags()) == ["clock.jpg metadata_conflict"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("- 1\n- 2", "a YAML list instead of an object"),
        ("a: &x [1]\nb: [*x, *x]", "aliases"),
        ("a: 1\na: 2", "stands twice"),
    ],
)
def test_a_bad_yaml_sidecar_is_told(text: str, told: str) -> None:
    found = parse_sidecar(text.encode(), yaml=True)
    assert told in found.problem and not found.values


@pytest.mark.parametrize(
    ("data", "yaml", "told"),
    [
        (b'{"a":' + b"[" * 600 + b"]" * 600 + b"}", False, "nested too deeply"),
        (b"a: 0x" + b"f" * 6000, True, "too many digits"),
    ],
)
def test_a_sidecar_that_no_column_can_hold_is_told_and_stops_nothing(
    data: bytes, yaml: bool, told: str
) -> None:
    found = parse_sidecar(data, yaml=yaml)
    assert told in found.problem and not found.values and found.raw == data.decode()


def test_half_a_character_and_numbers_that_are_none_can_be_stored(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.photo("a.png", 1)
    world.put("a.json", '{"half": "x\\ud800", "list": ["\\ud800"], "\\ud801": 1}')
    world.photo("b.png", 2)
    world.put("b.yaml", "n: .nan\nl: [.inf, 1]\n")
    world.ingest()
    known = world.known()
    assert (known["a.png"]["half"], known["a.png"]["list"]) == ("x?", '["?"]')
    assert json.loads(known["b.png"]["raw"]) == {"n": None, "l": [None, 1]}


def table_of(path: Path) -> MetadataTable:
    stat = path.stat()
    now = datetime.now(UTC)
    return MetadataTable(FileInfo(path.as_uri(), stat.st_size, str(stat.st_mtime_ns), now))


def test_tables_of_every_format_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"file_name": "ä b.png", "n": 3, "x": 1.5, "ok": True, "id": "007", "none": None},
        {"file_name": "sub/c.png", "n": -1, "x": 0.0, "ok": False, "id": "010", "none": None},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    lines = ["file_name;n;x;ok;id;none", "ä b.png;3;1.5;true;007;", "sub/c.png;-1;0.0;False;010;"]
    (tmp_path / "m.csv").write_text("\ufeff" + "\n".join(lines) + "\nä b.png;9;9;true;9;9\n")
    for name in ("m.jsonl", "m.parquet", "m.csv"):
        table = table_of(tmp_path / name)
        for row in rows:
            path = tmp_path / str(row["file_name"])
            said = table.values(normalise(str(path)))
            assert said == {k: v for k, v in row.items() if k != "file_name" and v is not None}
        assert table.values(normalise(str(tmp_path / "d.png"))) == {}
    assert table.n_repeated == 1


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.csv", "picture,weather\na.png,fog\n", "no column of files"),
        ("m.csv", "file,weather\na.png,fog,rain\n", "row 1 has more cells"),
        ("m.csv", "file,weather,weather\na.png,fog,rain\n", "'weather' stands twice"),
        ("m.csv", "", "it is empty"),
        ("m.csv", "file," + ",".join(map(str, range(501))) + "\na" + ",1" * 501, "more than 500"),
        ("m.csv", 'file,weather\n"a.png,fog\n', "cannot be read"),
        ("m.jsonl", '{"file": "a.png"}\n[1]\n', "row 2 is no object"),
        ("m.jsonl", '{"file": "a.png"\n', "line 1 is no JSON"),
        ("m.parquet", "no parquet", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_row(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        table_of(tmp_path / name)
    assert told in error.value.what and error.value.where.endswith(name)


def test_a_column_of_csv_has_one_type_and_identifiers_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "image\tserial\tok\tlux\t\n./a.png\t1e5\ttrue\t1.50\t0\nx/../b.png\t007\tFALSE\t2\t1\n"
        "c.png\t12\t\t\t2\n"
    )
    table = table_of(tmp_path / "m.csv")
    told = [table.values(normalise(tmp_path / name)) for name in ("a.png", "b.png", "c.png")]
    assert told == [
        {"serial": "1e5", "ok": True, "lux": 1.5},
        {"serial": "007", "ok": False, "lux": 2},
        {"serial": "12"},
    ]


def test_the_types_of_parquet_become_plain_values(tmp_path: Path) -> None:
    at = datetime(2026, 3, 2, 10, 0, 0, 123456, tzinfo=ZoneInfo("Europe/Berlin"))
    columns = {
        "file": pa.array(["a.png"]),
        "at": pa.array([at], pa.timestamp("us", "Europe/Berlin")),
        "ns": pa.array([1_000_000_001], pa.timestamp("ns")),
        "day": pa.array([date(2026, 3, 2)]),
        "price": pa.array([Decimal("1.50")]),
        "half": pa.array(np.array([0.5], np.float16)),
        "took": pa.array([timedelta(seconds=90)]),
        "tags": pa.array([["wet", "dark"]]),
        "when": pa.array([[at]], pa.list_(pa.timestamp("us", "UTC"))),
        "weather": pa.array(["fog"]).dictionary_encode(),
        "sensor": pa.array([{"iso": 400}]),
        "nan": pa.array([float("nan")]),
        "large": pa.array([2**60]),
        "key": pa.array([b"\x01\xff"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    told = table_of(tmp_path / "m.parquet").values(normalise(tmp_path / "a.png"))
    assert told == {
        "at": "2026-03-02T10:00:00.123456+01:00",
        "ns": "1970-01-01T00:00:01+00:00",
        "day": "2026-03-02",
        "price": 1.5,
        "half": 0.5,
        "took": 90.0,
        "tags": ["wet", "dark"],
        "when": ["2026-03-02T09:00:00.123456+00:00"],
        "weather": "fog",
        "sensor": {"iso": 400},
        "large": 2**60,
        "key": "01ff",
    }


def test_rows_that_name_no_file_are_counted_and_the_first_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    rows = ["a.png", "gone.png", "", "/elsewhere/a.png", "../a.png", "a.png"]
    (tmp_path / "metadata.csv").write_text("file,n\n" + "".join(f"{r},1\n" for r in rows))
    entries = list(open_source(SourceConfig(uri=str(tmp_path))).entries())
    assert [entry.role for entry in entries] == ["media", "sidecar", "row", "row", "row", "row"]
    told = capsys.readouterr().err
    assert "4 rows name no file of the source, 1 of them nothing at all" in told
    assert "/gone.png" in told and "1 rows name a file again" in told


def test_a_file_whose_name_is_no_utf8_is_described_by_its_path(tmp_path: Path) -> None:
    world = World(tmp_path, pattern="{camera}/{}")
    folder = os.fsencode(world.source) + b"/k\xf6ln"
    os.mkdir(folder)
    Path(os.fsdecode(folder), "a b%20.png").write_bytes(encoded(photograph(32, 24, 1)))
    world.ingest()
    (row,) = world.rows("metadata")
    assert row["camera"] == "k?ln"


def test_members_of_archives_are_described_by_their_names(tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "a.png").write_bytes(encoded(photograph(32, 24, 1)))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "dock ä/7.png")
    config = SourceConfig(uri=str(tmp_path / "x.tar"), pattern="{camera}/{shot:int}.png")
    source = open_source(config)
    (container,) = source.entries()
    (member,) = source.members(container)
    assert member.entry.path == {"camera": "dock ä", "shot": 7}
