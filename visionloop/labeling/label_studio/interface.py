"""What annotators see: Label Studio's labelling configuration, made from a `loop.yaml`."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig

IMAGE, CHOICE, BOX = "image", "choice", "box"
# So many buttons can be taken in at a glance; above it a field narrows them down.
_MANY = 20
# Label Studio puts a task's data in the place of such a word, wherever it stands.
_VARIABLE = re.compile(r"\$\w")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def asks_for_classes(config: LoopConfig) -> bool:
    """Return whether people are asked for the class of each image."""
    return config.labeling.ask != "boxes"


def asks_for_boxes(config: LoopConfig) -> bool:
    """Return whether people are asked for boxes."""
    return config.labeling.ask != "classes"


def labelling_config(config: LoopConfig) -> str:
    """Return the XML of the project's labelling interface.

    It shows why the image was picked, what the model takes it for and what else is known of it,
    then the classes in the order of `classes`, the first ones with a key each, and the image, which
    can be zoomed: below what is to be chosen, however high it is. The same configuration gives the
    same text.

    Args:
        config: The loop's configuration.

    Raises:
        InputError: The classes are not named, or Label Studio cannot show one of them.
    """
    classes = _showable(config.classes)
    root = ElementTree.Element("View")
    _add(root, "Header", value="$reason", size="5")
    _add(root, "Header", value="$model", size="6")
    _add(root, "Header", value="$details", size="6")
    image = {"zoom": "true", "zoomControl": "true", "rotateControl": "false"}
    if asks_for_boxes(config):
        if len(classes) > _MANY:
            _add(root, "Filter", name="box_filter", toName=BOX, minlength="0")
        labels = _add(root, "RectangleLabels", name=BOX, toName=IMAGE)
        for name in classes:
            _add(labels, "Label", value=name)
    if asks_for_classes(config):
        if len(classes) > _MANY:
            _add(root, "Filter", name="choice_filter", toName=CHOICE, minlength="0")
        choices = _add(
            root,
            "Choices",
            name=CHOICE,
            toName=IMAGE,
            choice="single",
            showInline="true",
            required="true",
            requiredMessage="Choose the class, or skip the image",
        )
        for name in classes:
            _add(choices, "Choice", value=name)
    _add(root, "Image", name=IMAGE, value="$image", **image)
    return ElementTree.tostring(root, encoding="unicode")


def instructions(config: LoopConfig) -> str:
    """Return what the button for instructions tells annotators, as HTML.

    Args:
        config: The loop's configuration.
    """
    asked = {
        "classes": "Choose the class of the image.",
        "boxes": "Draw a box around every object of one of the classes, close to its edges. An "
        "image without any is submitted without boxes.",
        "both": "Choose the class of the image, and draw a box around every object, close to its "
        "edges.",
    }[config.labeling.ask]
    return (
        f"<p>{asked} What the model suggests may be wrong: that is often why the image is here."
        "</p><p>Skip what nobody could label: it is not asked about again.</p>"
    )


def _showable(classes: Sequence[str]) -> Sequence[str]:
    if not classes:
        raise InputError(
            "the classes are not known yet, and annotators have to choose one of them",
            where="classes",
            remedy="Name them under `classes:`",
        )
    for name in classes:
        why = _why_not(name)
        if why:
            raise InputError(
                f"Label Studio cannot show the class {name!r}: {why}",
                where="classes",
                remedy="Give it another name",
            )
    return classes


def _why_not(name: str) -> str:
    if not name.strip():
        return "it is blank"
    if _VARIABLE.search(name):
        return "it takes $ for the beginning of a field's name"
    return "XML has no such character" if _NOT_XML.search(name) else ""


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)
