"""XML of others, part by part: memory holds one child of the root, and no entity is expanded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

# No image has so much said of it: a part that grows beyond is refused.
_MAX_PART = 1_000_000
_MAX_TEXT = 64 << 20


class BadXml(ValueError):
    """XML that cannot be read, or that nobody should read."""


def refusing_parser() -> expat.XMLParserType:
    """Return a parser that refuses a document type, and with it every entity.

    Parsing raises `BadXml` for one: entities could be made to fill the memory.
    """
    parser = expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise BadXml("it declares a document type, which no annotation needs")

    parser.StartDoctypeDeclHandler = refuse
    return parser


def parts(chunks: Iterable[bytes]) -> Iterator[ElementTree.Element]:
    """Yield the root without its children, then each of its children whole.

    What lies before a damage is yielded before it is told.

    Args:
        chunks: The document, in pieces.

    Raises:
        BadXml: It is not well formed, has a document type, or a part that is too large.
    """
    parser = refusing_parser()
    builder = _Parts()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    seen = quiet = 0
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)
            yield from builder.taken()
            # A tag that does not end is held by the parser.
            quiet = quiet + len(chunk) if builder.events == seen else 0
            seen = builder.events
            if quiet > _MAX_TEXT:
                raise BadXml(f"a tag of it has more than {_MAX_TEXT:,} bytes")
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        yield from builder.taken()
        raise BadXml(f"not XML: {error}") from None
    yield from builder.taken()


class _Parts:
    def __init__(self) -> None:
        self._depth = self._size = self._text = self.events = 0
        self._tree = ElementTree.TreeBuilder()
        self._ready: list[ElementTree.Element] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self.events += 1
        if self._depth == 1:
            self._ready.append(ElementTree.Element(tag, attributes))
            return
        if self._depth == 2:
            self._size = self._text = 0
        self._size += 1
        self._text += sum(map(len, attributes.values()))
        if self._size > _MAX_PART:
            raise BadXml(f"a part of it has more than {_MAX_PART:,} elements")
        self._tree.start(tag, attributes)

    def end(self, tag: str) -> None:
        self._depth -= 1
        if self._depth >= 1:
            self._tree.end(tag)
        if self._depth == 1:
            self._ready.append(self._tree.close())
            self._tree = ElementTree.TreeBuilder()

    def data(self, text: str) -> None:
        self.events += 1
        if self._depth > 1:
            self._text += len(text)
            if self._text > _MAX_TEXT:
                raise BadXml(f"a part of it has more than {_MAX_TEXT:,} characters")
            self._tree.data(text)

    def taken(self) -> list[ElementTree.Element]:
        ready, self._ready = self._ready, []
        return ready


def xml_text(text: str) -> str:
    """Return text for an XML file; characters that XML forbids become `?`."""
    return escape(_allowed(text))


def xml_attribute(text: object) -> str:
    """Return a quoted value of an attribute; characters that XML forbids become `?`."""
    return quoteattr(_allowed(str(text)))


def _allowed(text: str) -> str:
    return "".join(c if c >= " " or c in "\t\n" else "?" for c in text)
