"""Pictures of one camera that ask for a speed which no camera has."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Rows = NDArray[np.intp]
# Takes rows and as many later ones; tells between which the way is too fast.
TooFast = Callable[[Rows, Rows], NDArray[np.bool_]]

# Mean radius of the Earth (IUGG); the great circle is off by up to 0.5% of the ellipsoid's way.
EARTH_KM = 6371.0088
# Clocks count whole seconds, and a second is the least that lies between two pictures.
_LEAST_HOURS = 1 / 3600
# Beyond so many pieces of one camera's way its places are noise, and only lone jumps are told.
_PIECES = 2000
# So many moves on either side of one that is too fast are looked at, too: the wrong place may have
# been reached at a speed that is possible, after a pause.
_MOVES = 8


@dataclass(frozen=True)
class Jump:
    """A picture that is out of line with the others of its camera.

    Attributes:
        row: Its row.
        other: The row of the picture in line that it cannot be reached from, the nearest in time.
        km: Way between the two, over the great circle.
        hours: Time between them, at least a second.
    """

    row: int
    other: int
    km: float
    hours: float

    @property
    def speed(self) -> float:
        """Speed that this asks for, in km/h."""
        return self.km / self.hours


def great_circle(
    latitude: Values, longitude: Values, latitudes: Values, longitudes: Values
) -> Values:
    """Return distances between places in km, by the haversine formula (Sinnott, 1984).

    Args:
        latitude: Degrees north, shape [n].
        longitude: Degrees east, shape [n].
        latitudes: Of the other places, shape [n].
        longitudes: Of the other places, shape [n].
    """
    a, b = np.radians(latitude), np.radians(latitudes)
    half = (b - a) / 2, np.radians(longitudes - longitude) / 2
    chord = np.sin(half[0]) ** 2 + np.cos(a) * np.cos(b) * np.sin(half[1]) ** 2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1))))


def jumps(
    hours: Values, latitude: Values, longitude: Values, *, speed: float, apart: float
) -> list[Jump]:
    """Return which pictures of one camera are out of line with the rest.

    In line are as many pictures as can follow each other at a speed that is possible: the camera's
    way is cut where it is too fast, and at the last moves before that and the first after it; of
    its pieces those are kept that follow each other and hold most pictures, of equals the earlier
    ones. What is not kept is out of line where it is too fast to the one kept before or after it.

    Args:
        hours: When each was captured, in hours from any moment, shape [n].
        latitude: Degrees, shape [n].
        longitude: Degrees, shape [n].
        speed: In km/h, what is possible.
        apart: In km, below which two places count as one.

    Cost O(n·log n + p²) for p pieces.
    """
    order = np.argsort(hours, kind="stable")
    t, lat, lon = hours[order], latitude[order], longitude[order]

    def too_fast(i: Rows, j: Rows) -> NDArray[np.bool_]:
        km = great_circle(lat[i], lon[i], lat[j], lon[j])
        allowed = speed * np.maximum(np.abs(t[j] - t[i]), _LEAST_HOURS)
        return np.asarray((km > apart) & (km > allowed))

    at = np.arange(len(t))
    cuts = np.flatnonzero(too_fast(at[:-1], at[1:])) + 1
    if not len(cuts):
        return []
    moves = np.flatnonzero(great_circle(lat[:-1], lon[:-1], lat[1:], lon[1:]) > apart) + 1
    cuts = _with_moves(cuts, moves)
    starts, ends = np.r_[0, cuts], np.r_[cuts, len(t)]
    kept = np.zeros(len(t), dtype=bool)
    if len(starts) > _PIECES:
        # A lone jump: without it, those before and after it would follow each other.
        lone = np.zeros(len(t), dtype=bool)
        single = starts[1:-1][ends[1:-1] - starts[1:-1] == 1]
        lone[single] = ~too_fast(single - 1, single + 1)
        kept = ~lone
    else:
        for piece in _longest(starts, ends, too_fast):
            kept[starts[piece] : ends[piece]] = True
    line = np.flatnonzero(kept).tolist()
    found = []
    for row in np.flatnonzero(~kept).tolist():
        place = bisect_left(line, row)
        near = np.array(line[max(0, place - 1) : place + 1])
        near = near[too_fast(near, np.full(len(near), row))]
        if not len(near):
            line.insert(place, row)
            continue
        other = min(near.tolist(), key=lambda one: (abs(t[one] - t[row]), one))
        km = float(great_circle(lat[[row]], lon[[row]], lat[[other]], lon[[other]])[0])
        apart_hours = max(float(abs(t[other] - t[row])), _LEAST_HOURS)
        found.append(Jump(int(order[row]), int(order[other]), km, apart_hours))
    return found


def _with_moves(cuts: Rows, moves: Rows) -> Rows:
    """Return the cuts, and with them as many of the moves beside each as do not make too many."""
    if len(cuts) + 1 > _PIECES:
        return cuts
    for width in range(_MOVES, 0, -1):
        place = np.searchsorted(moves, cuts)
        beside = (place[:, None] + np.arange(-width, width + 1)).clip(0, len(moves) - 1)
        more = np.union1d(cuts, moves[beside.ravel()])
        if len(more) + 1 <= _PIECES:
            return more
    return cuts


def _longest(starts: Rows, ends: Rows, too_fast: TooFast) -> list[int]:
    """Return the pieces that follow each other and hold most pictures, in order."""
    best = (ends - starts).astype(np.int64)
    before = np.full(len(starts), -1)
    for piece in range(1, len(starts)):
        earlier = np.arange(piece)
        first = np.full(piece, starts[piece])
        blocked = too_fast(ends[:piece] - 1, first)
        reach = np.where(blocked, -1, best[earlier])
        chosen = int(reach.argmax())
        if reach[chosen] > 0:
            best[piece] += reach[chosen]
            before[piece] = chosen
    chain = [int(best.argmax())]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]
