"""Pictures of the live view come from the lake's thumbnails where originals cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.monitoring.report.lakes import START, Rows, jpeg, sample_id
from visionloop.monitoring.live.building import build_index
from visionloop.monitoring.live.pictures import NoPicture, Pictures


def test_thumbnails_of_several_files_are_told_apart_where_storage_may_not_be_read(
    tmp_path: Path,
) -> None:
    rows = Rows(tmp_path)
    for numbers in ([3, 0], [2], [5, 1, 4]):  # a file of the table each
        rows.write(
            "ingest",
            samples=[
                {
                    "sample_id": sample_id(n),
                    "uri": f"nobody-reads://bucket/{n}.jpg",
                    "split": "pool",
                    "ingested_at": START,
                }
                for n in numbers
            ],
            thumbnails=[{"sample_id": sample_id(n), "image": jpeg(n)} for n in numbers if n != 5],
        )
    index = build_index(rows.lake, rows.lake.version())
    pictures = Pictures()
    for n in (0, 1, 2, 3, 4):
        assert pictures.thumbnail(rows.lake, index, sample_id(n)).data == jpeg(n)
    with pytest.raises(NoPicture, match="cannot be read"):
        pictures.original(index, sample_id(0))
    with pytest.raises(NoPicture):
        pictures.thumbnail(rows.lake, index, sample_id(5))
    pictures.close()
