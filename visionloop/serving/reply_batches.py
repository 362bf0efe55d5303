"""Many logged replies at once: several times the speed of `decode_response`, with its results.

Nearly all replies of an endpoint are alike but for the id and the numbers. So both are cut out of
a V2 reply by position; what is left, its *template*, is met again and again, and is decoded once.
The numbers of many replies are parsed as one document, and checked as one array. Whatever is not
of that plain shape, or no distribution, goes to `decode_response` alone.

Why a cut by position is safe, whatever the bodies say: what was cut is replaced by marks that
nobody outside this process can know. A template counts as plain only where `decode_response` finds
the one mark as the reply's id, and numbers put in the place of the other as its probabilities. An
id is cut only where it needs no escapes. Numbers end at the first bracket behind them, and replies
are joined by a number that no distribution holds: so all brackets, braces, quotes and commas that
do not belong there either break the document, or move a separator from its place.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from visionloop.serving.distributions import TOLERANCE
from visionloop.serving.responses import Response, decode_response

# The numbers of so many bytes are parsed at once, and those of so many, or so many replies, are
# checked at once: both stay in the processor's cache.
_JOINED_BYTES = 96 * 1024
_CHECKED_BYTES = 512 * 1024
_MOST_CHECKED = 1024
# The numbers of a longer reply are parsed at once, while they are in the cache: joining no longer
# saves anything.
_LONG_BYTES = 8 * 1024
# A template is learnt when it is met again; what never is, costs one entry of a bounded set.
_MOST_TEMPLATES = 4096
_MOST_MET = 65_536
_TEMPLATE_BYTES = 2048
# Endpoints whose replies may come by turns before a look-up is needed for each.
_RECENT = 8
# Rows nearer than this to the tolerance are left to `decode_response`, which sums in doubles.
_NEAR = 1e-4
_PARTS = 8

_ID_MARK = secrets.token_hex(8).encode()
_DATA_MARK = b'"' + secrets.token_hex(8).encode() + b'"'
# What an id is made of that needs no second look.
_PLAIN = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._:/+=@ -"


@dataclass(frozen=True)
class _Plan:
    """What every reply of a template says: its `Response` but for the id and the numbers."""

    said: dict[str, Any]
    rows: int
    width: int
    named: bool


@dataclass
class _Head:
    """How replies begin: before the id, from there to the numbers, and what follows them.

    Attributes:
        before: What stands before the id; before the numbers where there is none.
        between: What stands between the two, from the quote behind the id; empty without an id.
        plans: What a reply says by what follows the numbers; None where it is not plain.
        last: What followed the numbers of the last long reply.
    """

    before: bytes
    between: bytes
    plans: dict[bytes, _Plan | None] = field(default_factory=dict)
    last: bytes = b"\0"


_Item = tuple[int, bytes, _Plan, bytes]  # place in the batch, id, what it says besides, numbers


class _Group:
    """Replies of one shape whose numbers are checked together.

    Attributes:
        items: The replies; the numbers are text, and empty where there is room for them.
        most: How many there may be.
        room: For the numbers of long replies, float32 [most, rows * width]: they are parsed as they
            come. None for others.
    """

    def __init__(self, plan: _Plan, *, long: bool) -> None:
        count = plan.rows * plan.width
        self.items: list[_Item] = []
        self.most = min(_MOST_CHECKED, 1 + _CHECKED_BYTES // (12 * count))
        self.room = np.empty((self.most, count), "<f4") if long else None


class _Templates:
    """The templates that were learnt, bounded in number and size."""

    def __init__(self) -> None:
        self._heads: dict[tuple[bytes, bytes], _Head] = {}
        self._met: set[int] = set()
        self._learnt = 0

    def head_of(self, body: bytes) -> tuple[_Head, tuple[int, int]] | None:
        """Return how a reply begins, and where its id stands; None where it is not plain."""
        start = _numbers_at(body)
        if not 0 < start <= _TEMPLATE_BYTES:
            return None
        place = end = start
        named = body.find(b'"id"', 0, start)
        if named >= 0:
            place = body.find(b'"', named + 4, start) + 1
            end = body.find(b'"', place, start)
            if not place or end < 0:
                return None
        before, between = body[:place], body[end:start]
        known = self._heads.get((before, between))
        # It is kept once one of its templates is learnt.
        return _Head(before, between) if known is None else known, (place, end)

    def learn(self, head: _Head, tail: bytes) -> _Plan | None:
        """Return what replies of a template say, once it is met again."""
        if len(tail) > _TEMPLATE_BYTES:
            return None
        met = hash((head.before, head.between, tail))
        if met not in self._met:
            if len(self._met) >= _MOST_MET:
                self._met.clear()
            self._met.add(met)
            return None
        if self._learnt >= _MOST_TEMPLATES:
            for held in self._heads.values():
                held.plans.clear()
            self._heads.clear()
            self._learnt = 0
        self._learnt += 1
        self._heads[head.before, head.between] = head
        named = _ID_MARK if head.between else b""
        template = b"".join((head.before, named, head.between, _DATA_MARK, tail))
        plan = head.plans[tail] = _learnt(template, named=bool(named))
        return plan


_templates = _Templates()
_local = threading.local()


@np.errstate(over="ignore")
def decode_responses(bodies: Sequence[bytes], content_types: Sequence[str]) -> list[Response]:
    """Read the bodies of response events; never raises for what a body says.

    Args:
        bodies: Bodies as they were logged, best some hundred at a time.
        content_types: The content type of each one's *request*.

    Returns:
        What `decode_response` answers for each, ``decoder_failed`` where that raises. The
        probabilities of neighbours are views of one array, of half a megabyte at most for shorter
        replies than that.
    """
    found: list[Response | None] = [None] * len(bodies)
    groups: dict[tuple[int, int, bool], _Group] = {}
    shape, last = (0, 0, False), None
    parser = _parser()
    recent: list[_Head] = []
    for index, body in enumerate(bodies):
        start = -1
        for head in recent:
            before = head.before
            if body.startswith(before):
                name = start = len(before)
                between = head.between
                if not between:
                    break
                start = body.find(b'"', name)
                if body.startswith(between, start):
                    break
                start = -1
        if start < 0:
            if body[:1] != b"{" or (new := _templates.head_of(body)) is None:
                continue
            head, (name, start) = new
            between = head.between
            if head.plans:
                recent = [head, *recent[: _RECENT - 1]]
        ident = body[name:start]
        start += len(between)
        long = len(body) - start > _LONG_BYTES
        if long and body.endswith(head.last):
            tail = head.last
            end = len(body) - len(tail)
        else:
            end = body.find(b"]", start)
            tail = body[end:]
        plan = head.plans.get(tail)
        if plan is None and end >= 0 and tail not in head.plans:
            plan = _templates.learn(head, tail)
        if plan is None:
            continue
        if (plan is not last or long is not shape[2]) and ((plan.rows, plan.width, long) != shape):
            shape = plan.rows, plan.width, long
            group = groups.get(shape) or groups.setdefault(shape, _Group(plan, long=long))
            items, room, most = group.items, group.room, group.most
        last = plan
        if room is None:
            items.append((index, ident, plan, body[start:end]))
        else:
            head.last = tail
            joined = b"".join((b"[", memoryview(body)[start:end], b"]"))
            values = _doubles(parser, joined, plan.rows * plan.width)
            if values is None or body.find(b"]", start) != end:
                continue
            room[len(items)] = values
            items.append((index, ident, plan, b""))
        if len(items) == most:
            _parse(parser, items, room, found)
            del groups[shape]
            shape, last = (0, 0, False), None
    for group in groups.values():
        if group.items:
            _parse(parser, group.items, group.room, found)
    return [
        _alone(bodies[index], content_types[index]) if answer is None else answer
        for index, answer in enumerate(found)
    ]


def _parser() -> simdjson.Parser:
    """Return this thread's parser: its buffers are grown once."""
    held: simdjson.Parser | None = getattr(_local, "parser", None)
    if held is None:
        held = _local.parser = simdjson.Parser()
    return held


def _alone(body: bytes, content_type: str) -> Response:
    try:
        return decode_response(body, content_type)
    except MemoryError:
        raise
    except Exception:  # a body that a library trips over must not stop the others
        return Response(problem="decoder_failed")


def _numbers_at(body: bytes) -> int:
    """Return where the first array of a reply's data begins that holds no texts; 0 for none."""
    place = 0
    while True:
        place = body.find(b'"data"', place) + 6
        if place < 6:
            return 0
        start = body.find(b"[", place) + 1
        if not start or b'"' not in body[start : start + 8]:  # labels come first
            return start


def _learnt(template: bytes, *, named: bool) -> _Plan | None:
    """Decode a template with numbers in place of the mark; None where they are not found again."""
    shape = _marked_shape(template)
    if not shape:
        return None
    rows = shape[0] if len(shape) > 1 else 1
    width = math.prod(shape) // rows
    if width < 2 or rows * width > _CHECKED_BYTES:
        return None
    values = np.zeros((rows, width), np.float32)
    values[:, 0] = [0.25 + secrets.randbelow(1 << 16) / (1 << 17) for _ in range(rows)]
    values[:, 1] = 1 - values[:, 0]
    numbers = orjson.dumps(values.ravel().tolist())[1:-1]
    answer = _alone(template.replace(_DATA_MARK, numbers), "")
    kept = answer.probabilities
    if answer.problem or kept is None or not np.array_equal(kept, values):
        return None
    if answer.embeddings is not None:
        return None  # they are numbers, too, and may be those that were cut
    if named and answer.v2_id != _ID_MARK.decode():
        return None  # what was cut is no id
    return _Plan(dict(answer.__dict__), rows, width, named)


def _marked_shape(template: bytes) -> tuple[int, ...]:
    """Return the shape of the floats that the mark stands for; empty where there are none."""
    try:
        outputs = orjson.loads(template)["outputs"]
        marked = [output for output in outputs if output.get("data") == [_DATA_MARK[1:-1].decode()]]
        (output,) = marked
        shape, datatype = output["shape"], output["datatype"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
    # A double that becomes FP16 or an integer is rounded first.
    if datatype not in ("FP32", "FP64") or not isinstance(shape, list):
        return ()
    return tuple(shape) if all(type(size) is int and 0 < size < 1 << 32 for size in shape) else ()


def _parse(
    parser: simdjson.Parser,
    items: Sequence[_Item],
    room: NDArray[np.float32] | None,
    found: list[Response | None],
) -> None:
    """Parse and check the numbers of replies of one shape; leaves out those that are not right."""
    block = _block(parser, items, room)
    names = b"\n".join([item[1] for item in items])
    if block is None or len(names.translate(None, _PLAIN)) != len(items) - 1:
        if len(items) > _PARTS:  # one bad reply must not make its neighbours slow
            step = -(-len(items) // _PARTS)
            for start in range(0, len(items), step):
                part = slice(start, start + step)
                _parse(parser, items[part], None if room is None else room[part], found)
        return
    off = np.abs(block.sum(axis=2) - 1.0)  # pairwise: right to some 1e-6
    right = (off <= TOLERANCE - _NEAR).all(axis=1).tolist()
    new, assign = object.__new__, object.__setattr__
    for (index, _, plan, _), name, values, fine in zip(
        items, names.decode().split("\n"), block, right, strict=True
    ):
        if fine:
            said = plan.said.copy()
            said["probabilities"] = values
            if plan.named:
                said["v2_id"] = name
            # As the class itself makes it, at a third of the time.
            answer = found[index] = new(Response)
            assign(answer, "__dict__", said)


def _block(
    parser: simdjson.Parser, items: Sequence[_Item], room: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Return float32 [replies, rows, width] in [0, 1]; None where some text is something else."""
    count, (_, _, plan, _) = len(items), items[0]
    rows, width = plan.rows, plan.width
    if room is not None:
        kept = room[:count]
    else:
        kept = np.empty((count, rows * width), "<f4")
        every = [item[3] for item in items]
        step = max(1, count * _JOINED_BYTES // (sum(map(len, every)) + 1))
        for start in range(0, count, step):
            texts = every[start : start + step]
            # The number between two replies, and behind the last one, is no probability.
            joined = b"".join((b"[", b",-1,".join(texts), b",-1]"))
            values = _doubles(parser, joined, len(texts) * (rows * width + 1))
            if values is None:
                return None
            values = values.reshape(len(texts), rows * width + 1)
            kept[start : start + step] = values[:, :-1]
    # A separator is not in [0, 1]: so each stands in the last column, and splits what it should.
    if not (kept.min() >= 0.0 and kept.max() <= 1.0):
        return None
    return kept.reshape(count, rows, width)


def _doubles(parser: simdjson.Parser, text: bytes, size: int) -> NDArray[np.float64] | None:
    """Return a list of so many numbers; None where a text is something else."""
    try:
        document: Any = parser.parse(text)
        values = np.frombuffer(document.as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError, AttributeError):
        return None
    return values if values.size == size else None
