"""CVAT's two XML formats: what people and the tool leave in them."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.sets import images, read
from visionloop.interchange.formats import WriteOptions, read_set, write_set
from visionloop.interchange.records import Annotated, Box, Problems

META = """<meta><task><id>7</id><size>5</size><mode>annotation</mode><subset>Train</subset>
<assignee><username>ann</username><email></email></assignee>
<labels><label><name>cat</name><type>any</type><attributes>
<attribute><name>asleep</name><input_type>checkbox</input_type></attribute>
<attribute><name>age</name><input_type>number</input_type></attribute>
<attribute><name>coat</name><input_type>select</input_type></attribute></attributes></label>
<label><name>dog</name><attributes></attributes></label></labels></task></meta>"""


def document(*parts: str, meta: str = META) -> str:
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>'
    return "\n".join([head, meta, *parts, "</annotations>"])


def image(name: str, *shapes: str, size: str = 'width="100" height="50"', more: str = "") -> str:
    return f'<image id="0" name="{name}" {size} {more}>{"".join(shapes)}</image>'


def box(corners: str, label: str = "cat", inside: str = "", more: str = "") -> str:
    sides = zip(("xtl", "ytl", "xbr", "ybr"), corners.split(), strict=True)
    placed = " ".join(f'{side}="{value}"' for side, value in sides)
    return f'<box label="{label}" source="manual" occluded="0" {placed} {more}>{inside}</box>'


def test_tags_are_classes_and_attributes_have_their_types(tmp_path: Path) -> None:
    images(tmp_path, "images/a.png", "images/sub/b.png")
    said = (
        '<attribute name="asleep">true</attribute><attribute name="age">3.5</attribute>'
        '<attribute name="coat">tabby</attribute>'
    )
    (tmp_path / "annotations.xml").write_text(
        document(
            image("a.png", f'<tag label="cat" source="manual">{said}</tag>'),
            image("sub/b.png", box("1.00 2 3 4", inside=said, more='z_order="2"')),
        )
    )
    found, problems = read("cvat", tmp_path)
    assert not problems.counts
    assert found["a.png"].labels == ("cat",) and found["a.png"].boxes is None
    typed = {"asleep": True, "age": 3.5, "coat": "tabby"}
    assert found["a.png"].metadata == typed
    assert found["sub/b.png"].boxes == (Box(1, 2, 3, 4, "cat", attributes=typed),)
    assert {one.origin for one in found.values()} == {"ann"}
    assert {one.split for one in found.values()} == {"Train"}
    assert found["a.png"].uri.endswith("/images/a.png")


def test_what_is_no_box_is_counted_and_left_out(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png", "c.png")
    points = 'label="cat" points="1,2;3,4;5,6"'
    (tmp_path / "annotations.xml").write_text(
        document(
            image(
                "a.png",
                box("1 2 30 40"),
                box("1 2 30 40", more='rotation="30.00"'),
                box("1 2 30 40", more='rotation="360"'),
                box("90 2 130 40"),
                box("200 2 230 40"),
                box("5 2 5 40"),
                box("5 2 x 40"),
                box("5 2 6 40", label=""),
                f"<polygon {points}/><polyline {points}/><points {points}/>",
                '<mask label="cat" rle="1, 2" left="0" top="0" width="3" height="1"/>',
                '<ellipse label="cat" cx="1" cy="2" rx="3" ry="4"/><cuboid label="cat"/>',
                f'<skeleton label="cat"><points {points}/></skeleton><thing/>',
                '<tag label=""/>',
            ),
            # Unknown is not none: nobody can tell an image of nothing from one nobody looked at.
            image("b.png"),
            image("c.png", f"<polygon {points}/>"),
            image("gone.png", '<tag label="dog"/>'),
        )
    )
    found, problems = read("cvat", tmp_path)
    assert len(found["a.png"].boxes or ()) == 3
    assert found["b.png"].boxes is None and found["c.png"].boxes is None
    assert dict(problems.boxes) == {
        "found": 8, "kept": 3, "rotated_box": 1, "outside_image": 1, "empty_box": 1, "bad_box": 1,
        "unknown_category": 1,
    }  # fmt: skip
    assert dict(problems.counts) == {
        "rotated_box": 1, "outside_image": 1, "empty_box": 1, "bad_box": 1, "clipped_box": 1,
        "unknown_category": 2, "segmentation": 5, "keypoints": 2, "cuboid": 1, "other_result": 1,
        "no_annotation": 2, "missing_file": 1,
    }  # fmt: skip


def test_several_jobs_are_one_set_and_overlapping_frames_are_told(tmp_path: Path) -> None:
    images(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    (tmp_path / "job_1.xml").write_text(
        document(image("a.png", '<tag label="cat"/>'), image("b.png", '<tag label="cat"/>'))
    )
    (tmp_path / "job_2.xml").write_text(
        document(image("b.png", '<tag label="dog"/>'), meta="<meta><job><id>2</id></job></meta>")
    )
    problems = Problems()
    found = list(read_set("cvat", str(tmp_path), problems=problems))
    assert [(one.file, one.labels) for one in found] == [
        ("a.png", ("cat",)), ("b.png", ("cat",)), ("b.png", ("dog",)), ("images/c.png", ()),
    ]  # fmt: skip
    # A deleted frame is not in CVAT's file: its image comes without a label.
    assert dict(problems.counts) == {"repeated_image": 1, "no_annotation": 1}


def test_what_came_from_a_model_and_nobody_changed_is_told(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    (tmp_path / "annotations.xml").write_text(
        document(image("a.png", '<tag label="cat" source="file"/>', box("1 2 3 4")))
    )
    found, problems = read("cvat", tmp_path)
    assert found["a.png"].labels == ("cat",)
    assert dict(problems.counts) == {"untouched": 1}


VIDEO = """<meta><job><id>3</id><mode>interpolation</mode><subset>default</subset>
<start_frame>0</start_frame><stop_frame>12</stop_frame><frame_filter>{step}</frame_filter>
<labels><label><name>car</name></label></labels></job>
<original_size><width>200</width><height>100</height></original_size><source>clip.mp4</source></meta>"""


def track(*boxes: str, label: str = "car") -> str:
    return f'<track id="0" label="{label}" source="manual">{"".join(boxes)}</track>'


def at(frame: int, x: float, outside: int = 0, key: int = 1, more: str = "") -> str:
    corners = f'xtl="{x}" ytl="10" xbr="{x + 10}" ybr="20"'
    state = f'keyframe="{key}" outside="{outside}" occluded="0" z_order="0"'
    return f'<box frame="{frame}" {state} {corners} {more}/>'


def left_edges(tmp_path: Path, *tracks: str, step: str = "") -> tuple[dict[int, Any], Problems]:
    (tmp_path / "annotations.xml").write_text(document(*tracks, meta=VIDEO.format(step=step)))
    found, problems = read("cvat", tmp_path)
    edges = {}
    for name, record in found.items():
        assert name.startswith("clip.mp4!/") and record.width == 200
        edges[int(name[-12:-4])] = [one.x_min for one in record.boxes or ()]
    return edges, problems


def test_frames_between_keyframes_are_filled_in_evenly_as_cvat_does(tmp_path: Path) -> None:
    edges, problems = left_edges(tmp_path, track(at(2, 20), at(6, 40), at(8, 40, outside=1)))
    assert edges == {2: [20], 3: [25], 4: [30], 5: [35], 6: [40], 7: [40]}
    assert not problems.counts


def test_the_last_keyframe_stays_to_the_end_and_steps_are_kept(tmp_path: Path) -> None:
    drawn = track(at(0, 0), at(6, 60))
    edges, _ = left_edges(tmp_path, drawn, step="step=3")
    assert edges == {0: [0], 3: [30], 6: [60], 9: [60], 12: [60]}
    # Between a keyframe where it left and one where it came again, it is nowhere.
    edges, _ = left_edges(tmp_path, track(at(1, 0), at(2, 0, outside=1), at(12, 50)))
    assert edges == {1: [0], 12: [50]}


def test_a_file_that_lists_every_frame_is_taken_as_it_is(tmp_path: Path) -> None:
    # Frame 4 was deleted in CVAT: nothing is filled in there.
    listed = [at(3, 30), at(5, 32, key=0), at(6, 33, key=0), at(7, 33, outside=1)]
    edges, problems = left_edges(tmp_path, track(*listed), track(at(5, 1), at(6, 1, outside=1)))
    assert edges == {3: [30], 5: [32, 1], 6: [33]}
    assert not problems.counts


def test_tracks_that_are_no_boxes_and_broken_frames_are_counted(tmp_path: Path) -> None:
    edges, problems = left_edges(
        tmp_path,
        track('<polygon frame="1" keyframe="1" outside="0" points="1,2;3,4;5,6"/>'),
        track(at(1, 10), at(1, 20), at(-3, 1), at(2, 10, outside=1)),
        track(at(4, 10, more='rotation="20"'), at(6, 10), at(7, 10, outside=1)),
        track(at(2, 1), label=""),
    )
    assert edges == {1: [10], 6: [10]}
    assert dict(problems.counts) == {
        "segmentation": 1, "repeated_frame": 1, "bad_box": 1, "rotated_box": 2,
        "unknown_category": 1,
    }  # fmt: skip


def test_a_track_of_a_billion_frames_is_not_filled_in(tmp_path: Path) -> None:
    meta = VIDEO.replace("<stop_frame>12<", "<stop_frame>900000000<").format(step="")
    (tmp_path / "annotations.xml").write_text(document(track(at(2, 20), at(6, 40)), meta=meta))
    found, problems = read("cvat", tmp_path)
    assert len(found) == 2 and problems.counts["long_track"] == 1


def test_a_zip_is_read_as_cvat_wrote_it_and_its_images_are_told(tmp_path: Path) -> None:
    images(tmp_path / "media", "a.png")
    place = tmp_path / "export.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", document(image("a.png", '<tag label="cat"/>')))
        archive.writestr("images/a.png", b"")
    found, problems = read("cvat", place, media=str(tmp_path / "media"))
    assert found["a.png"].labels == ("cat",) and found["a.png"].uri.endswith("media/a.png")
    assert dict(problems.counts) == {"zipped_images": 1}


def test_damaged_zips_stop_no_reader(tmp_path: Path) -> None:
    place = tmp_path / "export.zip"
    draw = random.Random(3)
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(place, "w", kind) as archive:
            text = document(*(image(f"{n}.png", '<tag label="cat"/>') for n in range(300)))
            archive.writestr("annotations.xml", text)
        data = place.read_bytes()
        for _ in range(40):
            broken = bytearray(data[: draw.randrange(1, len(data) + 1)])
            for _ in range(3):
                broken[draw.randrange(len(broken))] = draw.randrange(256)
            place.write_bytes(bytes(broken))
            problems = Problems()
            list(read_set("cvat", str(place), problems=problems))
        place.write_bytes(b"PK")
        problems = Problems()
        assert not list(read_set("cvat", str(place), problems=problems))
        assert problems.counts == {"bad_xml": 1}


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]><annotations><image name="&x;"/></annotations>',
        "<annotation><object/></annotation>",
        "<annotations><image name='a.png'>",
        "",
    ],
)
def test_entities_other_roots_and_cut_files_are_told_and_go_on(text: str, tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    (tmp_path / "1.xml").write_text(text)
    (tmp_path / "2.xml").write_text(document(image("a.png", '<tag label="cat"/>')))
    found, problems = read("cvat", tmp_path)
    assert found["a.png"].labels == ("cat",)
    assert dict(problems.counts) == {"bad_xml": 1}


def test_a_set_that_is_written_can_be_made_a_task(tmp_path: Path) -> None:
    images(tmp_path, "in/a.png")
    said = {"pose": "Left", "difficult": True, "occluded": True}
    record = Annotated(
        "sub/a.png", (tmp_path / "in/a.png").as_uri(), width=100, height=50,
        labels=('c"at & <dog>',), boxes=(Box(1.5, 2, 3, 4, "dog", attributes=said),), split="val",
    )  # fmt: skip
    options = WriteOptions(classes=("dog",))
    write_set("cvat", [record], str(tmp_path / "set"), options=options)
    text = (tmp_path / "set/annotations.xml").read_text()
    assert text.index("<meta>") < text.index("<image ")
    assert 'occluded="1" xtl="1.5" ytl="2" xbr="3" ybr="4" z_order="0"' in text
    labels = (tmp_path / "set/labels.json").read_text()
    assert '"difficult"' in labels and '"checkbox"' in labels and "occluded" not in labels
    found, problems = read("cvat", tmp_path / "set")
    assert found["sub/a.png"].labels == record.labels and found["sub/a.png"].boxes == record.boxes
    assert (tmp_path / "set/images/sub/a.png").exists() and not problems.counts
