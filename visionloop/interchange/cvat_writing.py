"""Writes "CVAT for images 1.1": ``annotations.xml``, ``labels.json`` and ``images/``."""

from __future__ import annotations

import shutil
from collections import defaultdict
from typing import IO, Any

import orjson

from visionloop.interchange.boxes import plain_number
from visionloop.interchange.formats import WriteOptions
from visionloop.interchange.records import Annotated, Box, Problems
from visionloop.interchange.safe_xml import xml_attribute, xml_text
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content

SIDES = ("xtl", "ytl", "xbr", "ybr")
# A key of ours: an image without any box may still have been looked at.
LOOKED = "annotated_boxes"


class Writer:
    """Writes ``annotations.xml`` to upload, ``images/``, and ``labels.json`` for a new task."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        self._images: IO[bytes] = target.scratch()
        self._attributes: dict[str, dict[str, str]] = defaultdict(dict)
        self._written = 0

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        content.put(self._target, f"images/{record.file}")
        said: dict[str, Any] = {"id": self._written, "name": record.file}
        if record.split:
            said["subset"] = record.split
        said |= {"width": record.width, "height": record.height}
        # Keys of ours, which CVAT passes over.
        if record.sample_id:
            said["sample_id"] = record.sample_id
        if record.boxes == ():
            said[LOOKED] = 1
        if content.media == "none" and content.uri:
            said["uri"] = content.uri
        lines = [f"  <image{_told(said)}>"]
        for label in record.labels:
            self.classes.place(label)
            lines.append(f"    <tag{_told({'label': label, 'source': 'manual'})}></tag>")
        lines += [self._box(box) for box in record.boxes or ()]
        self._images.write("\n".join([*lines, "  </image>\n"]).encode())
        self._written += 1

    def _box(self, box: Box) -> str:
        self.classes.place(box.label)
        more = {name: value for name, value in box.attributes.items() if name != "occluded"}
        said = {
            "label": box.label,
            "source": "manual",
            "occluded": int(bool(box.attributes.get("occluded"))),
            **dict(
                zip(
                    SIDES,
                    map(plain_number, (box.x_min, box.y_min, box.x_max, box.y_max)),
                    strict=True,
                )
            ),
            "z_order": 0,
        }
        for name, value in more.items():
            kind = "checkbox" if isinstance(value, bool) else "text"
            # A name with values of several types is text.
            if self._attributes[box.label].setdefault(name, kind) != kind:
                self._attributes[box.label][name] = "text"
        text = "".join(
            f"<attribute name={xml_attribute(name)}>"
            f"{xml_text(str(value).lower() if isinstance(value, bool) else str(value))}</attribute>"
            for name, value in more.items()
        )
        return f"    <box{_told(said)}>{text}</box>"

    def finish(self) -> None:
        """Write the labels and, behind them, the images."""
        out = self._target.open("annotations.xml")
        lines = [
            '<?xml version="1.0" encoding="utf-8"?>',
            "<annotations>",
            "  <version>1.1</version>",
            "  <meta><task>",
            f"    <size>{self._written}</size><mode>annotation</mode>",
            "    <labels>",
            *(self._label(name) for name in self.classes.names),
            "    </labels>",
            "  </task></meta>",
        ]
        out.write("\n".join(lines).encode() + b"\n")
        self._images.seek(0)
        shutil.copyfileobj(self._images, out)
        out.write(b"</annotations>\n")
        labels = [
            {
                "name": name,
                "attributes": [
                    {"name": one, "input_type": kind, "mutable": False, "values": _values(kind)}
                    for one, kind in self._attributes[name].items()
                ],
            }
            for name in self.classes.names
        ]
        self._target.write("labels.json", orjson.dumps(labels, option=orjson.OPT_INDENT_2) + b"\n")

    def _label(self, name: str) -> str:
        attributes = "".join(
            f"<attribute><name>{xml_text(one)}</name><mutable>False</mutable>"
            f"<input_type>{kind}</input_type><default_value>{_values(kind)[0]}</default_value>"
            f"<values>{_values(kind)[0]}</values></attribute>"
            for one, kind in self._attributes[name].items()
        )
        return (
            f"      <label><name>{xml_text(name)}</name><type>any</type>"
            f"<attributes>{attributes}</attributes></label>"
        )


def _values(kind: str) -> list[str]:
    return ["false"] if kind == "checkbox" else [""]


def _told(values: dict[str, Any]) -> str:
    return "".join(f" {name}={xml_attribute(value)}" for name, value in values.items())
