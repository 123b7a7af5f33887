"""What an order of nodes is judged by: values, who writes and reads them, the peak of live bytes.

A value is alive from the node that writes it (or from the start, where no node does) to the last
node that reads it, or to the end where it is kept. The peak of an order is the largest sum of live
bytes while a node runs, its operands and results included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Problem:
    """sizes: bytes of each value. writes, reads: for each node, in a valid order, the indices of
    the values it defines and uses. kept: values alive to the end. lends: for each node, pairs
    (operand, result) of one size: the result takes the operand's memory where no later node reads
    that; the first pair that can be has it. Empty where nothing is ever lent. late: values that no
    node writes, alive from the first node that reads them: memory that several nodes share.

    Raises ValueError where these do not fit together.
    """

    sizes: tuple[int, ...]
    writes: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, ...], ...]
    kept: frozenset[int] = frozenset()
    lends: tuple[tuple[tuple[int, int], ...], ...] = ()
    late: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.reads) != len(self.writes) or len(self.lends) not in (0, len(self.writes)):
            raise ValueError("writes, reads and lends tell of different numbers of nodes")
        if min(self.sizes, default=0) < 0:
            raise ValueError("a value has less than no bytes")
        defined = set(range(len(self.sizes)))
        for n, (reads, writes) in enumerate(zip(self.reads, self.writes)):
            late = [v for v in reads if self.producer[v] >= n]
            if late:
                raise ValueError(f"node {n} reads value {late[0]} before it is written")
            for v in writes:
                if v not in defined:
                    raise ValueError(f"node {n} writes value {v}, which another one writes, too")
                defined.discard(v)
        written = [v for v in self.late if self.producer[v] >= 0 or not self.readers[v]]
        if written:
            raise ValueError(f"value {written[0]} is late, but it is written, or nothing reads it")
        for n, pairs in enumerate(self.lends):
            for v, w in pairs:
                if v not in self.reads[n] or w not in self.writes[n]:
                    raise ValueError(f"node {n} does not read {v} and write {w}")
                if self.sizes[v] != self.sizes[w]:
                    raise ValueError(f"node {n}: values {v} and {w} differ in size")

    @staticmethod
    def of_nodes(sizes: Sequence[int], preds: Sequence[Iterable[int]]) -> Problem:
        """Each node writes one value of `sizes[node]` bytes, kept where nothing reads it."""
        n = len(sizes)
        reads = tuple(tuple(dict.fromkeys(p)) for p in preds)
        read = {p for ps in reads for p in ps}
        return Problem(
            tuple(sizes), tuple((i,) for i in range(n)), reads, frozenset(set(range(n)) - read)
        )

    @property
    def count(self) -> int:
        """The number of nodes."""
        return len(self.writes)

    @cached_property
    def producer(self) -> tuple[int, ...]:
        """The node that writes each value; -1 where none does."""
        found = [-1] * len(self.sizes)
        for n, values in enumerate(self.writes):
            for v in values:
                found[v] = n
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that read each value."""
        found: list[list[int]] = [[] for _ in self.sizes]
        for n, values in enumerate(self.reads):
            for v in dict.fromkeys(values):
                found[v].append(n)
        return tuple(tuple(r) for r in found)

    @cached_property
    def preds(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that must run before each node."""
        return tuple(
            tuple(dict.fromkeys(self.producer[v] for v in values if self.producer[v] >= 0))
            for values in self.reads
        )

    @cached_property
    def succs(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that must run after each node."""
        found: list[list[int]] = [[] for _ in self.writes]
        for n, ps in enumerate(self.preds):
            for p in ps:
                found[p].append(n)
        return tuple(tuple(s) for s in found)

    @cached_property
    def before(self) -> tuple[int, ...]:
        """For each node, the set of nodes that all orders have before it, as a bit mask."""
        found = [0] * self.count
        for n, ps in enumerate(self.preds):
            for p in ps:
                found[n] |= found[p] | 1 << p
        return tuple(found)

    @cached_property
    def after(self) -> tuple[int, ...]:
        """For each node, the set of nodes that all orders have after it, as a bit mask."""
        found = [0] * self.count
        for n in reversed(range(self.count)):
            for s in self.succs[n]:
                found[n] |= found[s] | 1 << s
        return tuple(found)

    @cached_property
    def floors(self) -> tuple[int, ...]:
        """For each node, the bytes of its operands and results: alive while it runs in any order.
        What may be lent counts once."""
        return tuple(
            sum(self.sizes[v] for v in {*r, *w})
            - sum(self.sizes[w] for w in self.loans(n, lambda v: v not in self.kept))
            for n, (r, w) in enumerate(zip(self.reads, self.writes))
        )

    @cached_property
    def ends(self) -> tuple[int, int]:
        """Bytes alive before the first node and after the last one."""
        first = last = 0
        for v, size in enumerate(self.sizes):
            outside = self.producer[v] < 0 and v not in self.late
            first += size * outside
            last += size * (v in self.kept or (outside and not self.readers[v]))
        return first, last

    def live_after(self, done: int) -> int:
        """Bytes alive after a set of nodes, given as a bit mask."""
        live = 0
        for v, size in enumerate(self.sizes):
            writer, readers = self.producer[v], self.readers[v]
            begins = readers if v in self.late else (writer,)
            if any(n < 0 or done >> n & 1 for n in begins):
                left = any(not done >> r & 1 for r in readers) or (writer < 0 and not readers)
                live += size * (left or v in self.kept)
        return live

    def loans(self, node: int, dies: Callable[[int], bool]) -> dict[int, int]:
        """Result -> the operand whose memory it takes at `node`, where `dies` tells which operands
        no later node reads."""
        found: dict[int, int] = {}
        if self.lends:
            taken: set[int] = set()
            for v, w in self.lends[node]:
                if w not in found and v not in taken and dies(v):
                    found[w] = v
                    taken.add(v)
        return found


@dataclass(frozen=True)
class Order:
    """sequence: nodes in the order they run. peak: bytes. bound: no order's peak is below it."""

    sequence: tuple[int, ...]
    peak: int
    bound: int

    @property
    def proven(self) -> bool:
        """Whether no order has a lower peak."""
        return self.peak == self.bound


def live_bytes(problem: Problem, sequence: Sequence[int]) -> list[int]:
    """Bytes alive while each node of `sequence` runs. Raises ValueError where a node runs before
    one that it needs, twice, or not at all."""
    if sorted(sequence) != list(range(problem.count)):
        raise ValueError("the sequence is no permutation of the nodes")
    sizes, kept = problem.sizes, problem.kept
    left = [len(r) for r in problem.readers]
    live = problem.ends[0]
    done = [False] * problem.count
    during: list[int] = []
    for n in sequence:
        for p in problem.preds[n]:
            if not done[p]:
                raise ValueError(f"node {n} runs before node {p}, whose result it reads")
        done[n] = True
        live += sum(sizes[v] for v in problem.writes[n])
        for v in problem.late.intersection(problem.reads[n]):
            live += sizes[v] * (left[v] == len(problem.readers[v]))
        lent = problem.loans(n, lambda v: left[v] == 1 and v not in kept)
        during.append(live - sum(sizes[w] for w in lent))
        for v in dict.fromkeys(problem.reads[n]):
            left[v] -= 1
            if left[v] == 0 and v not in kept:
                live -= sizes[v]
        live -= sum(sizes[v] for v in problem.writes[n] if not problem.readers[v] and v not in kept)
    return during


def live_peak(problem: Problem, sequence: Sequence[int]) -> int:
    """Peak of live bytes when nodes run in `sequence`. Raises ValueError where a node runs before
    one that it needs, twice, or not at all."""
    return max(live_bytes(problem, sequence), default=problem.ends[0])


def bits(mask: int) -> list[int]:
    """The positions of the ones, ascending."""
    return [i for i, b in enumerate(reversed(bin(mask)[2:])) if b == "1"]
