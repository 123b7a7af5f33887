"""Placement problems whose answer is known because they are made from it."""

import random

from aicc.memory.placement import Buffer


def perfect_packing(seed: int, count: int, steps: int, capacity: int) -> list[Buffer]:
    """A rectangle of time by bytes, cut into `count` buffers or, where nothing is left to cut,
    fewer: it fits `capacity` without a free byte. Cuts are straight, or pinwheels of five pieces
    that no straight cut can make. Fewer buffers of it also fit."""
    rng = random.Random(seed)
    pieces = [(0, steps, 0, capacity)]
    whole: list[tuple[int, int, int, int]] = []
    while pieces and len(pieces) + len(whole) < count:
        piece = max(rng.sample(pieces, min(3, len(pieces))), key=_area)
        pieces.remove(piece)
        cut = _cut(piece, rng)
        (pieces if len(cut) > 1 else whole).extend(cut)
    return [Buffer(high - low, a, b - 1) for a, b, low, high in pieces + whole]


def _area(piece):
    a, b, low, high = piece
    return (b - a) * (high - low)


def _cut(piece, rng):
    a, b, low, high = piece
    kinds = ["pinwheel"] * (b - a > 2 and high - low > 2)
    kinds += ["time"] * (b - a > 1) + ["bytes"] * (high - low > 1)
    kind = rng.choice(kinds) if kinds else None
    if kind == "time":
        t = rng.randrange(a + 1, b)
        return [(a, t, low, high), (t, b, low, high)]
    if kind == "bytes":
        y = rng.randrange(low + 1, high)
        return [(a, b, low, y), (a, b, y, high)]
    if kind == "pinwheel":
        s, t = sorted(rng.sample(range(a + 1, b), 2))
        x, y = sorted(rng.sample(range(low + 1, high), 2))
        arms = [(a, t, low, x), (t, b, low, y), (s, b, y, high), (a, s, x, high)]
        return [*arms, (s, t, x, y)]
    return [piece]


def fits(buffers: list[Buffer], capacity: int) -> bool:
    """Whether a placement in `capacity` bytes exists, by trying all in the order of their offsets:
    each buffer on those before it that live at the same time."""

    def under(b: Buffer, c: Buffer) -> bool:
        return b.first <= c.last and c.first <= b.last

    def rest(left: frozenset[int], placed: dict[int, int], last: tuple[int, int]) -> bool:
        if not left:
            return True
        for i in left:
            b = buffers[i]
            tops = [at + buffers[j].size for j, at in placed.items() if under(b, buffers[j])]
            at = max(tops, default=0)
            if at + b.size <= capacity and (at, i) > last:
                if rest(left - {i}, {**placed, i: at}, (at, i)):
                    return True
        return False

    return rest(frozenset(range(len(buffers))), {}, (0, -1))


GAP = [
    Buffer(4, 4, 7),
    Buffer(2, 5, 7),
    Buffer(2, 0, 1),
    Buffer(4, 0, 0),
    Buffer(1, 2, 4),
    Buffer(1, 1, 4),
    Buffer(3, 1, 3),
]
"""No more than 6 bytes live at once, but 7 are needed: the buffers of 1 byte lie at the bottom or
at the top beside those of 4 and 2 at one end of their life, and not so at the other."""
