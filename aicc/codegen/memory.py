"""Loads and stores: scalars, contiguous vectors, gathers and scatters, and masks.

An access is decided by the stride of its address in the vector variable: 0 is a scalar access, 1 a
contiguous vector, anything else an access for each lane, or a gather or scatter under a mask. But
lanes at known places near each other (every second element, each element twice), or in a local
buffer, are picked from contiguous vectors by shuffles. An element of a parameter that a mask leaves
out is neither read nor written, not even speculatively.
"""

from __future__ import annotations

from collections.abc import Sequence

from aicc.codegen.addressing import Addressing, Value
from aicc.codegen.known import KnownMemory, Place
from aicc.codegen.llvm_types import known_flags, llvm_type, memory_type, runs, splat, suffix
from aicc.codegen.writer import ZEROS, FunctionWriter
from aicc.dtypes import is_float, nbytes
from aicc.symbolic import (
    Size,
    opaques,
    product,
    proves_le,
    proves_lt,
    substitute,
    value_range,
)
from aicc.target import Target
from aicc.tensor_ir.ir import Buffer, Kernel

PICKED = 8
"""Vectors that the lanes of one are picked from, at most; from more, they are gathered."""
WINDOW = 4
"""Vectors that the elements of one are picked from at most: fewer loads than a gather does."""

LINE = 64
"""Bytes that a cache reads and writes together."""


class Memory(Addressing):
    """The state of emission with what it takes to read and write buffers."""

    def __init__(self, kernel: Kernel, target: Target, fn: FunctionWriter) -> None:
        super().__init__(kernel, target, fn)
        self.known = KnownMemory()
        self.known_lanes: dict[str, tuple[Value, tuple[bool, ...]]] = {}
        """Masks of known lanes that take part where a condition holds."""
        self.unread = ""
        """A place for stores that no lane performs."""

    def load(self, buffer: Buffer, indices: tuple[Size, ...]) -> Value:
        """The elements at `indices`, one for each lane where these differ."""
        offset = self.offset(buffer, indices)
        stride = self.stride(offset)
        place = self._place(offset, stride)
        if place is None or self.mask is not None or opaques(offset):
            return self._load(buffer, offset, stride)
        found = self.known.value(buffer, place)
        if found is None:
            found = self._load(buffer, offset, stride)
            self.known.loaded(buffer, place, found)
        return found

    def _place(self, offset: Size, stride: Size | None) -> Place | None:
        """Where an access is; None for gathers and scatters."""
        if stride == 0:
            return Place(offset, 0, offset)
        if stride != 1:
            return None
        return Place(offset, self.lanes, self.at_lane_zero(offset))

    def _load(self, buffer: Buffer, offset: Size, stride: Size | None) -> Value:
        if stride == 0:
            return self._load_scalar(buffer, offset)
        assert self.vector is not None
        t = memory_type(buffer.dtype, self.lanes)
        name = suffix(buffer.dtype, self.lanes) if buffer.dtype != "bool" else f"v{self.lanes}i8"
        align = nbytes(buffer.dtype)
        if stride == 1:
            pointer = self.address(buffer, self.at_lane_zero(offset))
            known = self._known_mask()
            # Floats of lanes outside the mask do no harm; memory read whole becomes registers.
            whole = is_float(buffer.dtype) and self.all_lanes(buffer, offset)
            if self.mask is None or (known and all(known)) or whole:
                raw = self.fn.value(f"load {t}, ptr {pointer}, align {align}")
            elif known is not None and not self._narrow(buffer, known):
                raw = self._load_runs(buffer, pointer, known)
            elif (some := self._known_part(buffer)) is not None:
                pointer = self._guarded(pointer, self.fn.module.zeros(), some[0])
                raw = self._load_runs(buffer, pointer, some[1])
            elif self._whole_or_none(buffer):
                pointer = self._guarded(pointer, self.fn.module.zeros())
                raw = self.fn.value(f"load {t}, ptr {pointer}, align {align}")
            else:
                raw = self._load_masked(buffer, pointer)
        elif (picked := self._picked(buffer, offset)) is not None:
            raw = picked
        elif (near := self._near(buffer, offset)) is not None:
            raw = self._load_near(buffer, offset, near)
        elif (places := self._places(buffer, offset, stride)) is not None:
            raw = "zeroinitializer" if len(places) < self.lanes else "poison"
            for n, at in places:
                one = memory_type(buffer.dtype)
                part = self.fn.value(f"load {one}, ptr {at}, align {align}")
                raw = self.fn.value(f"insertelement {t} {raw}, {one} {part}, i64 {n}")
        else:
            raw = self.fn.call(
                t,
                f"llvm.masked.gather.{name}.v{self.lanes}p0",
                [
                    (f"<{self.lanes} x ptr>", self.pointer_vector(buffer, offset)),
                    ("i32", str(align)),
                    (f"<{self.lanes} x i1>", self.vector_mask()),
                    (t, "zeroinitializer"),
                ],
            )
        return self.from_memory(raw, buffer.dtype, self.lanes)

    def _picked(self, buffer: Buffer, offset: Size) -> str | None:
        """Lanes at known places of a local buffer, from a few vectors by shuffles: what the lanes
        of a tile are where they alternate between its vectors. None for other places."""
        count, vector = product(buffer.shape), self.vector
        if not self.is_local(buffer) or not isinstance(count, int) or vector is None:
            return None
        lanes: list[int] = []
        for n in range(self.lanes):
            place = substitute(offset, {vector: n})
            if not isinstance(place, int) or place < 0:
                return None
            lanes.append(place)
        parts = sorted({place // self.lanes for place in lanes})
        if len(parts) > PICKED or (parts[-1] + 1) * self.lanes > count:
            return None
        t, raw, have = memory_type(buffer.dtype, self.lanes), "poison", [-1] * self.lanes
        for part in parts:
            first = part * self.lanes
            pointer = self.address(buffer, first)
            wide = self.fn.value(f"load {t}, ptr {pointer}, align {nbytes(buffer.dtype)}")
            for n, place in enumerate(lanes):
                if place // self.lanes == part:
                    have[n] = self.lanes + place - first
            raw = self.fn.value(f"shufflevector {t} {raw}, {t} {wide}, {shuffle_mask(have)}")
            have = [-1 if h < 0 else n for n, h in enumerate(have)]
        return raw

    def _near(self, buffer: Buffer, offset: Size) -> dict[int, int] | None:
        """Where lanes are behind the first, where those that take part are known, or none or all
        do, and all are at known places in a window of a few vectors; else None."""
        assert self.vector is not None
        known = self._known_mask()
        if opaques(offset) or (self._unknown() and self.mask is not None and self.mask.lanes):
            return None
        first = self.at_lane_zero(offset)
        places: dict[int, int] = {}
        for n in range(self.lanes):
            if known is None or known[n]:
                place = substitute(offset, {self.vector: n}) - first
                if not isinstance(place, int) or abs(place) >= WINDOW * self.lanes:
                    return None
                places[n] = place
        most = ZEROS // nbytes(buffer.dtype) if self._unknown() else WINDOW * self.lanes
        if not places or max(places.values()) - min(places.values()) >= most:
            return None
        return places

    def _unknown(self) -> bool:
        """Whether a run tells which lanes take part."""
        return self.mask is not None and self._known_mask() is None

    def _load_near(self, buffer: Buffer, offset: Size, places: dict[int, int]) -> str:
        """The elements at `places` from the first lane's, picked from contiguous vectors, of which
        the last ends at the last element; zero in other lanes."""
        low, span = min(places.values()), max(places.values()) - min(places.values()) + 1
        size = min(1 << (self.lanes.bit_length() - 1), 1 << (span.bit_length() - 1))
        t = memory_type(buffer.dtype, size)
        first = self._behind(buffer, self.address(buffer, self.at_lane_zero(offset)), low)
        if self._unknown():
            first = self._guarded(first, self.fn.module.zeros())
        starts = [*range(0, span - size, size), span - size]
        parts: list[tuple[str, dict[int, int]]] = []
        left = {n: place - low for n, place in places.items()}
        for start in starts:
            mine = {n: p - start for n, p in left.items() if p < start + size}
            left = {n: p for n, p in left.items() if n not in mine}
            if mine:
                at = self._behind(buffer, first, start)
                raw = self.fn.value(f"load {t}, ptr {at}, align {nbytes(buffer.dtype)}")
                parts.append((raw, mine))
        (text, mine), *more = parts
        other, theirs = more.pop(0) if more else ("poison", {})
        lanes = [mine.get(n, size + theirs[n] if n in theirs else -1) for n in range(self.lanes)]
        text = self.fn.value(f"shufflevector {t} {text}, {t} {other}, {shuffle_mask(lanes)}")
        wide = memory_type(buffer.dtype, self.lanes)
        for raw, mine in more:
            picked = shuffle_mask([mine.get(n, -1) for n in range(self.lanes)])
            part = self.fn.value(f"shufflevector {t} {raw}, {t} poison, {picked}")
            both = shuffle_mask([self.lanes + n if n in mine else n for n in range(self.lanes)])
            text = self.fn.value(f"shufflevector {wide} {text}, {wide} {part}, {both}")
        if len(places) < self.lanes:
            kept = shuffle_mask([n if n in places else self.lanes for n in range(self.lanes)])
            text = self.fn.value(f"shufflevector {wide} {text}, {wide} zeroinitializer, {kept}")
        return text

    def _places(
        self, buffer: Buffer, offset: Size, stride: Size | None
    ) -> list[tuple[int, str]] | None:
        """The lanes that take part in an access that is not contiguous, and where the element of
        each is; None where only a run can tell which lanes do.

        Accesses to one element each: the instructions for all of them at once are microcode that
        takes longer, up to ten times where memory is far, as one waits for the other.
        """
        known = self._known_mask()
        if self.mask is not None and known is None:
            return None
        lanes = [n for n in range(self.lanes) if known is None or known[n]]
        if isinstance(stride, int):
            first = self.address(buffer, self.at_lane_zero(offset))
            return [(n, self._behind(buffer, first, n * stride)) for n in lanes]
        pointers = self.pointer_vector(buffer, offset)
        of = f"extractelement <{self.lanes} x ptr> {pointers}"
        return [(n, self.fn.value(f"{of}, i64 {n}")) for n in lanes]

    def _whole_or_none(self, buffer: Buffer) -> bool:
        """True where the mask is one for all lanes and the target has no registers for masks:
        choosing an address takes less then."""
        assert self.mask is not None
        fits = self.lanes * nbytes(buffer.dtype) <= ZEROS
        return fits and not self.mask.lanes

    def is_local(self, buffer: Buffer) -> bool:
        """True for buffers of this function alone."""
        return buffer.scope in ("register", "stack")

    def all_lanes(self, buffer: Buffer, offset: Size) -> bool:
        """Whether all lanes of a vector at `offset`, masked or not, are in a local buffer."""
        if not self.is_local(buffer):
            return False
        low, high = value_range(offset)
        if low is None or high is None:
            return False
        return proves_le(0, low) and proves_lt(high, product(buffer.shape))

    def room(self, buffer: Buffer) -> int:
        """The elements that a local buffer of a known size has room for: on the stack whole lines
        where it is longer than one."""
        count, line = product(buffer.shape), LINE // nbytes(buffer.dtype)
        assert isinstance(count, int)
        return count if buffer.scope != "stack" or count <= line else -(-count // line) * line

    def _at_end(self, buffer: Buffer, offset: Size, known: Sequence[bool]) -> bool:
        """Whether a vector under a mask ends a local buffer, whose room has a place for it all.

        It is stored whole: what reads a line from two stores waits until both are in the cache.
        """
        count = product(buffer.shape)
        if not self.is_local(buffer) or not isinstance(count, int):
            return False
        first, some = self.at_lane_zero(offset), sum(known)
        fits = all(known[:some]) and first == count - some
        return fits and count - some + self.lanes <= self.room(buffer)

    def _known_mask(self) -> tuple[bool, ...] | None:
        """The lanes that take part, where that is known here.

        Such masks become narrower accesses: LLVM 22 would store a whole element, not a truncated
        one, where a mask is a constant with one lane.
        """
        return None if self.mask is None else known_flags(self.mask.text)

    def _narrow(self, buffer: Buffer, known: Sequence[bool]) -> bool:
        """True for some of many small elements where the target has masks for them: in parts that
        are powers of two they would take several accesses, and moves to put them together."""
        masks = "avx512bw" in self.target.feature_set
        return masks and nbytes(buffer.dtype) < 4 and sum(known) not in (0, 1, 2, 4, 8, 16, 32)

    def _load_masked(self, buffer: Buffer, pointer: str) -> str:
        """The lanes of the mask from consecutive elements at `pointer`, the others zero.

        On AVX-512 a fence follows. Without it LLVM 22 may fold the load into an operation under the
        same mask, unfold it again for its registers' sake, and forget the mask: a read of memory
        that belongs to nobody. The fence is no instruction.
        """
        lanes, mask = self.lanes, self.vector_mask()
        t, align = memory_type(buffer.dtype, lanes), nbytes(buffer.dtype)
        words, rest = divmod(lanes * align, 4)
        fenced = "avx512f" in self.target.feature_set
        if fenced and rest:
            return self._load_lanes(buffer, pointer, mask)
        name = suffix(buffer.dtype, lanes) if buffer.dtype != "bool" else f"v{lanes}i8"
        raw = self.fn.call(
            t,
            f"llvm.masked.load.{name}.p0",
            [
                ("ptr", pointer),
                ("i32", str(align)),
                (f"<{lanes} x i1>", mask),
                (t, "zeroinitializer"),
            ],
        )
        if not fenced:
            return raw
        as_floats = llvm_type("f32", words)
        bits = self.fn.value(f"bitcast {t} {raw} to {as_floats}")
        name = f"llvm.arithmetic.fence.{suffix('f32', words)}"
        kept = self.fn.call(as_floats, name, [(as_floats, bits)])
        return self.fn.value(f"bitcast {as_floats} {kept} to {t}")

    def _load_lanes(self, buffer: Buffer, pointer: str, mask: str) -> str:
        """As `_load_masked`, lane by lane."""
        t, wide = memory_type(buffer.dtype), memory_type(buffer.dtype, self.lanes)
        text = "zeroinitializer"
        for n in range(self.lanes):
            active = self.fn.value(f"extractelement <{self.lanes} x i1> {mask}, i64 {n}")
            at = self._behind(buffer, pointer, n)
            zeros = self.fn.module.zeros()
            place = self.fn.value(f"select i1 {active}, ptr {at}, ptr {zeros}")
            part = self.fn.value(f"load {t}, ptr {place}, align {nbytes(buffer.dtype)}")
            text = self.fn.value(f"insertelement {wide} {text}, {t} {part}, i64 {n}")
        return text

    def _load_runs(self, buffer: Buffer, pointer: str, lanes: Sequence[bool]) -> str:
        """The lanes that are true from consecutive elements at `pointer`, the others zero."""
        wide = memory_type(buffer.dtype, self.lanes)
        text = "zeroinitializer"
        for first, end in runs(lanes):
            at = self._behind(buffer, pointer, first)
            if end - first == 1:
                t = memory_type(buffer.dtype)
                part = self.fn.value(f"load {t}, ptr {at}, align {nbytes(buffer.dtype)}")
                text = self.fn.value(f"insertelement {wide} {text}, {t} {part}, i64 {first}")
                continue
            t = memory_type(buffer.dtype, end - first)
            part = self.fn.value(f"load {t}, ptr {at}, align {nbytes(buffer.dtype)}")
            size = end - first
            spread = shuffle_mask([n if n < size else -1 for n in range(self.lanes)])
            full = self.fn.value(f"shufflevector {t} {part}, {t} poison, {spread}")
            place = shuffle_mask(
                [self.lanes + n - first if first <= n < end else n for n in range(self.lanes)]
            )
            text = self.fn.value(f"shufflevector {wide} {text}, {wide} {full}, {place}")
        return text

    def _store_runs(self, buffer: Buffer, pointer: str, text: str, lanes: Sequence[bool]) -> None:
        """The lanes of `text` that are true to consecutive elements at `pointer`."""
        wide = memory_type(buffer.dtype, self.lanes)
        # Frozen, so that LLVM does not compute the stored lanes anew from narrower operands: in a
        # tile that would repeat its multiply-adds after the loop and spill their operands in it.
        text = self.fn.value(f"freeze {wide} {text}")
        for first, end in runs(lanes):
            at = self._behind(buffer, pointer, first)
            if end - first == 1:
                t = memory_type(buffer.dtype)
                part = self.fn.value(f"extractelement {wide} {text}, i64 {first}")
            else:
                t = memory_type(buffer.dtype, end - first)
                picked = shuffle_mask(list(range(first, end)))
                part = self.fn.value(f"shufflevector {wide} {text}, {wide} poison, {picked}")
            self.fn.emit(f"store {t} {part}, ptr {at}, align {nbytes(buffer.dtype)}")

    def _behind(self, buffer: Buffer, pointer: str, n: int) -> str:
        t = memory_type(buffer.dtype)
        return self.fn.value(f"getelementptr {t}, ptr {pointer}, i64 {n}") if n else pointer

    def _load_scalar(self, buffer: Buffer, offset: Size) -> Value:
        t = memory_type(buffer.dtype)
        pointer = self.address(buffer, offset)
        if self.mask is not None:
            pointer = self._guarded(pointer, self.fn.module.zeros())
        raw = self.fn.value(f"load {t}, ptr {pointer}, align {nbytes(buffer.dtype)}")
        return self.from_memory(raw, buffer.dtype, 0)

    def _nowhere(self) -> str:
        """A place for what is not stored."""
        self.unread = self.unread or self.fn.at_entry(f"alloca [{ZEROS} x i8], align 64")
        return self.unread

    def _known_part(self, buffer: Buffer) -> tuple[Value, tuple[bool, ...]] | None:
        """The condition and the lanes of a mask of known lanes, where the target has no registers
        for masks. LLVM 22 splits such masks, and reads all of a part where no lane takes part."""
        assert self.mask is not None
        fits = self.lanes * nbytes(buffer.dtype) <= ZEROS
        if not fits or "avx512f" in self.target.feature_set:
            return None
        return self.known_lanes.get(self.mask.text)

    def _guarded(self, pointer: str, harmless: str, mask: Value | None = None) -> str:
        """`pointer` where the mask holds in some lane, else a harmless place."""
        mask = mask or self.mask
        assert mask is not None
        active = mask.text
        known = known_flags(mask.text)
        if known is not None:
            return pointer if any(known) else harmless
        if mask.lanes:
            t = f"<{mask.lanes} x i1>"
            active = self.fn.call("i1", f"llvm.vector.reduce.or.v{mask.lanes}i1", [(t, active)])
        return self.fn.value(f"select i1 {active}, ptr {pointer}, ptr {harmless}")

    def vector_mask(self) -> str:
        """The current mask in all lanes; all true where there is none."""
        if self.mask is None:
            return splat("true", "bool", self.lanes)
        return self.broadcast(self.mask, self.lanes).text

    def from_memory(self, raw: str, dtype: str, lanes: int) -> Value:
        if dtype != "bool":
            return Value(raw, dtype, lanes)
        t = memory_type("bool", lanes)
        zero = splat("0", "i8", lanes) if lanes else "0"
        return Value(self.fn.value(f"icmp ne {t} {raw}, {zero}"), "bool", lanes)

    def _to_memory(self, v: Value) -> str:
        if v.dtype != "bool":
            return v.text
        return self.fn.value(f"zext {self.type_of(v)} {v.text} to {memory_type('bool', v.lanes)}")

    def store(self, buffer: Buffer, indices: tuple[Size, ...], v: Value) -> None:
        """Writes one lane or all to an element or elements of a buffer, those that the mask has."""
        offset = self.offset(buffer, indices)
        stride = self.stride(offset)
        scalar = self.vector is None or (stride == 0 and not v.lanes)
        place = Place(offset, 0, offset) if scalar else self._place(offset, stride)
        sure = place is not None and self.mask is None and v.lanes == place.lanes
        self.known.stored(buffer, place, v if sure else None)
        align = nbytes(buffer.dtype)
        if self.vector is None or (stride == 0 and not v.lanes):
            t = memory_type(buffer.dtype)
            pointer = self.address(buffer, offset)
            if self.mask is not None:
                pointer = self._guarded(pointer, self._nowhere())
            self.fn.emit(f"store {t} {self._to_memory(v)}, ptr {pointer}, align {align}")
            return
        wide = self.broadcast(v, self.lanes)
        text = self._to_memory(wide)
        t = memory_type(buffer.dtype, self.lanes)
        name = suffix(buffer.dtype, self.lanes) if buffer.dtype != "bool" else f"v{self.lanes}i8"
        if stride == 1:
            pointer = self.address(buffer, self.at_lane_zero(offset))
            known = self._known_mask()
            if self.mask is None or (known and (all(known) or self._at_end(buffer, offset, known))):
                self.fn.emit(f"store {t} {text}, ptr {pointer}, align {align}")
                return
            if known is not None and not self._narrow(buffer, known):
                self._store_runs(buffer, pointer, text, known)
                return
            if (some := self._known_part(buffer)) is not None:
                pointer = self._guarded(pointer, self._nowhere(), some[0])
                self._store_runs(buffer, pointer, text, some[1])
                return
            self.fn.call(
                "void",
                f"llvm.masked.store.{name}.p0",
                [
                    (t, text),
                    ("ptr", pointer),
                    ("i32", str(align)),
                    (f"<{self.lanes} x i1>", self.vector_mask()),
                ],
            )
            return
        places = self._places(buffer, offset, stride)
        if places is not None:
            for n, at in places:
                part = self.fn.value(f"extractelement {t} {text}, i64 {n}")
                self.fn.emit(f"store {memory_type(buffer.dtype)} {part}, ptr {at}, align {align}")
            return
        self.fn.call(
            "void",
            f"llvm.masked.scatter.{name}.v{self.lanes}p0",
            [
                (t, text),
                (f"<{self.lanes} x ptr>", self.pointer_vector(buffer, offset)),
                ("i32", str(align)),
                (f"<{self.lanes} x i1>", self.vector_mask()),
            ],
        )


def shuffle_mask(lanes: Sequence[int]) -> str:
    """The mask operand of a shufflevector; -1 is a lane that nobody reads."""
    items = ", ".join("i32 poison" if n < 0 else f"i32 {n}" for n in lanes)
    return f"<{len(lanes)} x i32> <{items}>"
