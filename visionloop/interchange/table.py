"""Tables: CSV or Parquet with a row for each label and each box.

The least is ``file,label``. Columns are found by the names that people give them: a file or URI,
``label`` or ``class``, ``x_min``/``xmin`` and so on; all others are metadata. Rows of one image
need not stand together. A table is held in memory, as Arrow columns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import orjson
import pyarrow as pa

from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, certainty, finite, plain_number
from visionloop.interchange.formats import ReadOptions, WriteOptions, leftovers
from visionloop.interchange.places import (
    Folder,
    Images,
    file_and_root,
    image_size,
    read_text,
)
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.shapes import as_pixels
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds
from visionloop.lake.storage import join, open_storage

HOLDS = Holds(
    labels=1000, boxes=True, score=True, attributes=True, metadata=True, split=True, sample_id=True
)
# Names of columns in other people's tables.
_NAMES = {
    "file": ("file", "filename", "file_name", "image", "image_path", "path", "image_id", "img"),
    "uri": ("uri", "url"),
    "sample_id": ("sample_id",),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "split": ("split", "subset", "set"),
    "origin": ("origin", "annotator"),
    "seconds": ("seconds", "lead_time"),
    "kind": ("kind",),
    "label": ("label", "class", "class_name", "label_name", "category", "choice"),
    "score": ("score", "confidence"),
    "x_min": ("x_min", "xmin", "left", "x1"),
    "y_min": ("y_min", "ymin", "top", "y1"),
    "x_max": ("x_max", "xmax", "right", "x2"),
    "y_max": ("y_max", "ymax", "bottom", "y2"),
    "attributes": ("attributes",),
    "metadata": ("metadata",),
}
_TEXT = ("file", "uri", "sample_id", "split", "origin", "kind", "label", "attributes", "metadata")
_WHOLE = ("width", "height")
_SIDES = ("x_min", "y_min", "x_max", "y_max")
# What Label Studio writes into a cell of its CSV that holds more than one choice.
_RESULTS = ("[{", '{"choices"')
_ROWS = 10_000


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a table; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, ".csv", ".tsv", ".parquet")
    whole = not named
    if whole:
        found = [p for p in Folder(root).named(".csv", ".tsv", ".parquet") if "/" not in p]
        if len(found) != 1:
            raise InputError(
                f"{len(found)} tables lie here",
                where=uri,
                remedy="Name the .csv or .parquet file",
            )
        named = found[0]
    place = join(root, named)
    table = _parquet(place) if named.endswith(".parquet") else _csv(place, problems)
    columns = {
        meaning: column
        for meaning, names in _NAMES.items()
        for column in [next((c for c in table.column_names if c.strip().lower() in names), "")]
        if column
    }
    if "file" not in columns and "uri" not in columns:
        raise InputError(
            f"the columns are {', '.join(table.column_names)}: none names a file",
            where=uri,
            remedy="Call one `file` or `uri`",
        )
    reading = Reading("table", place, problems, iter(()), [])
    reading.records = _records(_Rows(named, table, columns), options.media or root, reading, whole)
    return reading


class _Rows:
    """A table's rows by image, in the order in which images come up."""

    def __init__(self, name: str, table: pa.Table, columns: Mapping[str, str]) -> None:
        self.name, self._table, self._columns = name, table, columns
        taken = set(columns.values())
        self._metadata = [column for column in table.column_names if column not in taken]

    def by_image(self) -> Iterator[list[tuple[int, dict[str, Any], dict[str, Any]]]]:
        """Yield the rows of one image: line, values by meaning, metadata."""
        import numpy as np

        key = self._columns.get("file") or self._columns["uri"]
        codes = self._table[key].combine_chunks().dictionary_encode().indices.fill_null(-1)
        order = np.argsort(codes.to_numpy(zero_copy_only=False), kind="stable")

        def rows() -> Iterator[tuple[int, int, dict[str, Any]]]:
            for start in range(0, len(order), _ROWS):
                part = order[start : start + _ROWS]
                taken = self._table.take(pa.array(part)).to_pylist()
                of = codes.take(pa.array(part)).to_pylist()
                yield from zip(of, part.tolist(), taken, strict=True)

        for _, group in groupby(rows(), lambda row: row[0]):
            yield [
                (
                    number + 2,  # the header is line 1
                    {m: row[c] for m, c in self._columns.items() if row[c] not in (None, "")},
                    {c: row[c] for c in self._metadata if row[c] is not None},
                )
                for _, number, row in group
            ]


def _records(table: _Rows, root: str, reading: Reading, whole: bool) -> Iterator[Annotated]:
    problems = reading.problems
    images: Images | None = None
    for rows in table.by_image():
        line, first, _ = rows[0]
        name = str(first.get("file") or first.get("uri") or "")
        if not name:
            for number, _, _ in rows:
                problems.add("no_file", table.name, f"line {number}", "it names no image")
            continue
        uri = str(first.get("uri") or (name if "://" in name else ""))
        if not uri:
            images = images or Folder(root).images(whole=whole)
            uri = images.uri(images.find(name, hints=("", "images")))
            if not uri:
                problems.add("missing_file", table.name, f"line {line}", name)
        yield _record(table.name, name, uri, rows, reading)
    if images is not None:
        yield from leftovers(images, problems)


def _record(
    table: str,
    name: str,
    uri: str,
    rows: list[tuple[int, dict[str, Any], dict[str, Any]]],
    reading: Reading,
) -> Annotated:
    problems = reading.problems
    said: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for number, values, more in rows:
        more = {**more, **_object(values.get("metadata"), table, number, "metadata", problems)}
        for kept, given in ((said, values), (metadata, more)):
            for key, value in given.items():
                if kept.setdefault(key, value) != value and (
                    kept is metadata or key in ("split", "width", "height", "sample_id", "uri")
                ):
                    told = f"{value!r}, and {kept[key]!r} before"
                    problems.add("conflict", table, f"line {number}, {key}", told)
    width, height = (as_pixels(said.get(side)) for side in ("width", "height"))
    if not (width and height) and any("x_min" in values for _, values, _ in rows):
        width, height = image_size(uri)
    reader = BoxReader(problems, table, width, height)
    labels: list[str] = []
    boxes: list[Box] = []
    looked = False
    score: float | None = None
    for number, values, _ in rows:
        label, kind = str(values.get("label", "")), values.get("kind", "")
        if label.startswith(_RESULTS):
            told = "results of Label Studio in one cell: export the project as JSON"
            problems.add("other_result", table, f"line {number}, label", told)
            continue
        if label and label not in reading.classes:
            reading.classes.append(label)
        if kind == "no_boxes":
            looked = True
        elif any(side in values for side in _SIDES):
            looked = True
            if not label:
                problems.drop_box("unknown_category", table, f"line {number}", "it has no label")
                continue
            box = reader.box(
                [values.get(side) for side in _SIDES],
                label,
                f"line {number}",
                score=values.get("score"),
                attributes=_object(values.get("attributes"), table, number, "attributes", problems),
            )
            boxes += [box] if box else []
        elif label and label not in labels:
            if not labels:
                where = f"line {number}, score"
                score = certainty(values.get("score"), problems, table, where)
            labels.append(label)
    if not labels and not looked:
        problems.add("no_annotation", table, f"line {rows[0][0]}", name)
    seconds = finite(said.get("seconds"))
    plain = {key: v.isoformat() if hasattr(v, "isoformat") else v for key, v in metadata.items()}
    return Annotated(
        name,
        uri,
        str(said.get("sample_id", "")),
        width,
        height,
        tuple(labels),
        score,
        (),
        tuple(boxes) if looked else None,
        plain,
        str(said.get("split", "")),
        str(said.get("origin", "")),
        seconds if seconds is not None and seconds >= 0 else None,
    )


def _object(text: Any, table: str, number: int, field: str, problems: Problems) -> dict[str, Any]:
    if not text:
        return {}
    try:
        content = orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        problems.add("bad_json", table, f"line {number}, {field}", str(text))
        return {}
    return content


def _parquet(uri: str) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(pa.BufferReader(open_storage(uri).read(uri)))
    except pa.ArrowInvalid as error:
        raise InputError(
            f"not Parquet: {error}", where=uri, remedy="Write the file once more"
        ) from None


def _csv(uri: str, problems: Problems) -> pa.Table:
    from pyarrow import csv as arrow_csv

    data = read_text(uri).encode()
    first = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    delimiter = max("\t;,", key=first.count)
    header = next(csv.reader([first.rstrip("\r")], delimiter=delimiter), [])
    text = {
        column: pa.string()
        for column in header
        for meaning in _TEXT
        if column.strip().lower() in _NAMES[meaning]
    }

    def skip(row: Any) -> str:
        told = f"{row.actual_columns} columns of {row.expected_columns}"
        problems.add("bad_row", uri.rpartition("/")[2], f"line {row.number or '?'}", told)
        return "skip"

    try:
        return arrow_csv.read_csv(
            io.BytesIO(data),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=text),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(
            f"not a CSV file: {error}", where=uri, remedy="Save it as CSV in UTF-8"
        ) from None


class Writer:
    """Writes ``annotations.csv`` or ``annotations.parquet``, and ``images/``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        more = options.columns if options.columns is not None else pa.schema([])
        # A name that the table has itself stays in the column `metadata`.
        own = {name for names in _NAMES.values() for name in names}
        self._more = [f for f in more if f.name.lower() not in own]
        said = [pa.field(name, _type_of(name)) for name in _NAMES]
        self._schema = pa.schema([*said[:-1], *self._more, said[-1]])
        self._rows: list[dict[str, Any]] = []
        self._parquet: Any = None
        name = f"annotations.{options.table}"
        self._file = target.open(name)
        if options.table == "parquet":
            import pyarrow.parquet as pq

            self._parquet = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        else:
            self._line(self._schema.names)

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        content.put(self._target, f"images/{record.file}")
        names = {field.name for field in self._more}
        left = {key: value for key, value in record.metadata.items() if key not in names}
        image: dict[str, Any] = {
            "file": record.file,
            "uri": record.uri if content.media == "none" else None,
            "sample_id": record.sample_id or None,
            "width": record.width or None,
            "height": record.height or None,
            "split": record.split or None,
            "origin": record.origin or None,
            "seconds": record.seconds,
            **{key: value for key, value in record.metadata.items() if key in names},
            "metadata": orjson.dumps(left).decode() if left else None,
        }
        for place, label in enumerate(record.labels):
            self.classes.place(label)
            score = None if place else record.score
            self._rows.append({**image, "kind": "label", "label": label, "score": score})
        for box in record.boxes or ():
            self.classes.place(box.label)
            said = dict(box.attributes)
            sides = {side: getattr(box, side) for side in _SIDES}
            self._rows.append(
                {
                    **image,
                    "kind": "box",
                    "label": box.label,
                    "score": box.score,
                    **sides,
                    "attributes": orjson.dumps(said).decode() if said else None,
                }
            )
        if record.boxes == () or not record.annotated:
            self._rows.append({**image, "kind": "image" if record.boxes is None else "no_boxes"})
        if len(self._rows) >= _ROWS:
            self._flush()

    def finish(self) -> None:
        """Write the last rows."""
        self._flush()
        if self._parquet is not None:
            self._parquet.close()

    def _flush(self) -> None:
        if self._parquet is not None:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        else:
            for row in self._rows:
                self._line([_cell(row.get(name)) for name in self._schema.names])
        self._rows.clear()

    def _line(self, cells: Iterable[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue().encode())


def _type_of(column: str) -> pa.DataType:
    if column in _TEXT:
        return pa.string()
    return pa.int64() if column in _WHOLE else pa.float64()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return plain_number(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
