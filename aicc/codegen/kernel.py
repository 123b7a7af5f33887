"""A kernel of the tensor IR as one LLVM module.

    i32 @name(ptr pool, ptr param..., i64 size...)

It returns 0, the number (from 1) of a failed check, or OUT_OF_MEMORY. Parameters may overlap only
where the kernel's meaning allows it: loads and stores happen in the order of the statements.

A `parallel` loop becomes a function over a range of iterations that the pool's threads call; its
per-thread buffers are stack slots there. Everything is generic: no operator is known here.
"""

from __future__ import annotations

from collections.abc import Sequence

from aicc.codegen.addressing import Value
from aicc.codegen.block_copies import BlockCopies
from aicc.codegen.llvm_types import memory_type
from aicc.codegen.once import Turns
from aicc.codegen.stretches import Stretch, conditions, stretches
from aicc.codegen.unrolling import may_be_cut
from aicc.codegen.uses import stands_apart, used
from aicc.codegen.writer import FunctionWriter, ModuleWriter
from aicc.dtypes import nbytes
from aicc.symbolic import Size, Sym, from_atom, maximum, minimum, opaques, product, symbols
from aicc.target import Target
from aicc.tensor_ir.dependence import used_across
from aicc.tensor_ir.ir import Buffer, Check, Expr, For, If, Kernel, Reduce, Stmt, Store, While
from aicc.tensor_ir.walk import walk_stmts, word_of
from aicc.tensor_ir.work import SHARED_CYCLES, loop_cycles

STACK_LIMIT = 1 << 19
"""Bytes of local buffers that a function keeps on the stack; what is larger, or of unknown size,
comes from the heap."""
TAKEN_CYCLES = 4_000
"""Cycles of the iterations that a thread takes at a time, at least, where there are enough."""
PARTS = 16
"""Parts that a loop is handed out in, at least, so that no thread waits long for the last one."""
OUT_OF_MEMORY = -1
"""What the entry point returns where the heap has no room for a local buffer."""


def lower_kernel(kernel: Kernel, target: Target) -> str:
    """The LLVM text of a kernel; its entry point has the kernel's name."""
    module = ModuleWriter()
    params = ", ".join(
        ["ptr %pool", *(_parameter(n, b) for n, b in enumerate(kernel.params))]
        + [f"i64 %s{n}" for n in range(len(kernel.sizes))]
    )
    header = f"define i32 {symbol(kernel.name)}({params}) nounwind"
    body = KernelFunction(kernel, target, FunctionWriter(module, header), _checks(kernel))
    for n, b in enumerate(kernel.params):
        body.pointers[b.name] = _argument(n, b)
    for n, s in enumerate(kernel.sizes):
        body.variables[s] = f"%s{n}"
    body.lower(kernel.body, kernel.body)
    return module.text()


def symbol(name: str) -> str:
    """A global name in LLVM's text; any name will do."""
    plain = (c if c.isascii() and (c.isalnum() or c in "._-$") else None for c in name)
    return '@"' + "".join(c or _escaped(n) for c, n in zip(plain, name)) + '"'


def _escaped(character: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in character.encode())


def _argument(n: int, b: Buffer) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "_" for c in b.name)
    return f"%p{n}.{plain}"


def _parameter(n: int, b: Buffer) -> str:
    traits = "noalias readonly nocapture" if b.scope == "const" else "nocapture"
    return f"ptr {traits} {_argument(n, b)}"


def _checks(kernel: Kernel) -> dict[Check, int]:
    """The number of each check statement, from 1, in program order."""
    found = dict.fromkeys(s for s in walk_stmts(kernel.body) if isinstance(s, Check))
    return {c: n + 1 for n, c in enumerate(found)}


def check_messages(kernel: Kernel) -> list[str]:
    """What each failed check says; position n belongs to the entry point's result n + 1."""
    return [c.message for c in _checks(kernel)]


def _has_parallel(body: tuple[Stmt, ...]) -> bool:
    return any(isinstance(s, For) and s.kind == "parallel" for s in walk_stmts(body))


class KernelFunction(BlockCopies):
    """One LLVM function: the kernel's entry point, or the body of a parallel loop."""

    def __init__(
        self, kernel: Kernel, target: Target, fn: FunctionWriter, checks: dict[Check, int]
    ) -> None:
        super().__init__(kernel, target, fn)
        self.checks = checks
        self.heap: list[str] = []
        self.stack_bytes = 0
        self.may_fail = False
        self.name = kernel.name
        self.pool = "%pool"
        self.status: str | None = None
        """Where the body of a parallel loop leaves the number of a failed check."""

    def lower(self, body: Sequence[Stmt], scope: Sequence[Stmt]) -> None:
        """Writes the whole function: buffers that `scope` alone uses, statements, return."""
        self._allocate(scope)
        self.heads.append(self.fn.head())
        self.statements(body)
        self._return("0")
        self.fn.finish()

    # buffers

    def _allocate(self, scope: Sequence[Stmt]) -> None:
        inside, here = used(scope), used_across(scope)
        for b in self.kernel.buffers:
            # What belongs to the iterations of parallel loops is left to these.
            mine = b.name in here or b.scope not in ("stack", "register")
            if b.name in inside and b.name not in self.pointers and mine:
                self.pointers[b.name] = self._slot(b)

    def _slot(self, b: Buffer) -> str:
        count = product(b.shape)
        if isinstance(count, int):
            count = self.room(b) or 1
            size = count * nbytes(b.dtype)
            # A tile in registers is on the stack even where no room is left, or it is in memory.
            if b.scope == "register" or self.stack_bytes + size <= STACK_LIMIT:
                self.stack_bytes += size
                t = memory_type(b.dtype)
                return self.fn.at_entry(f"alloca [{count} x {t}], align 64")
        bytes_ = self.size(count * nbytes(b.dtype) + 64)
        pointer = self.fn.call("ptr", "malloc", [("i64", bytes_)])
        n = self.fn.fresh("heap")
        none = self.fn.value(f"icmp eq ptr {pointer}, null")
        self.fn.emit(f"br i1 {none}, label %{n}.none, label %{n}.ok")
        self.fn.label(f"{n}.none")
        self._return(str(OUT_OF_MEMORY))
        self.fn.label(f"{n}.ok")
        self.heap.append(pointer)
        address = self.fn.value(f"ptrtoint ptr {pointer} to i64")
        ahead = self.fn.value(f"and i64 {self.fn.value(f'sub i64 0, {address}')}, 63")
        return self.fn.value(f"getelementptr i8, ptr {pointer}, i64 {ahead}")

    def _return(self, code: str) -> None:
        for pointer in self.heap:
            self.fn.call("void", "free", [("ptr", pointer)])
        if self.status is None:
            self.fn.emit(f"ret i32 {code}")
            return
        if code != "0":
            self.may_fail = True
            self.fn.emit(f"store atomic i32 {code}, ptr {self.status} monotonic, align 4")
        self.fn.emit("ret void")

    # statements

    def statements(self, body: Sequence[Stmt]) -> None:
        """Writes statements, one after the other."""
        for s in body:
            if isinstance(s, For):
                plain = self.vector is None and self.mask is None
                if plain and stands_apart(s, body):
                    self._apart(s)
                else:
                    self._loop(s)
                continue
            self.scopes.append({})
            if isinstance(s, Store):
                value = self.expression(s.value)
                self.store(self.kernel.buffer(s.buffer), s.indices, value)
            elif isinstance(s, Reduce):
                self.reduce(s)
            elif isinstance(s, If):
                self._if(s)
            elif isinstance(s, While):
                self._while(s)
            elif isinstance(s, Check):
                self._check(s)
            self.scopes.pop()

    def _check(self, s: Check) -> None:
        cond = self._condition(s.cond)
        if self.mask is not None:  # lanes that do not take part pass
            absent = self.apply("not", [self.mask], "bool", self.mask.lanes)
            lanes = max(cond.lanes, absent.lanes)
            args = [self.broadcast(v, lanes) for v in (cond, absent)]
            cond = Value(self.apply("or", args, "bool", lanes).text, "bool", lanes)
        if cond.lanes:
            flags = (f"<{cond.lanes} x i1>", cond.text)
            name = f"llvm.vector.reduce.and.v{cond.lanes}i1"
            cond = Value(self.fn.call("i1", name, [flags]), "bool")
        n = self.fn.fresh("check")
        self.fn.emit(f"br i1 {cond.text}, label %{n}.ok, label %{n}.fail")
        self.fn.label(f"{n}.fail")
        self._return(str(self.checks[s]))
        self.fn.label(f"{n}.ok")

    def _condition(self, e: Expr) -> Value:
        """A value that statements follow: what it loaded may have changed when they load it."""
        self.scopes.append({})
        value = self.expression(e)
        self.scopes.pop()
        return value

    def _if(self, s: If) -> None:
        cond = self._condition(s.cond)
        decided = self.decided(cond)
        if decided is not None:
            self.statements(s.then if decided else s.orelse)
            return
        if cond.lanes:
            self._masked(cond, s)
            return
        n = self.fn.fresh("if")
        self.fn.emit(f"br i1 {cond.text}, label %{n}.then, label %{n}.else")
        for name, body in (("then", s.then), ("else", s.orelse)):
            self.fn.label(f"{n}.{name}")
            self.scopes.append({})
            self.known.enter()
            self.enter()
            self.statements(body)
            self.leave()
            self.known.leave()
            self.scopes.pop()
            self.fn.emit(f"br label %{n}.end")
        self.fn.label(f"{n}.end")

    def _masked(self, cond: Value, s: If) -> None:
        """Both branches, each for the lanes where it applies."""
        outer = self.mask
        for body, holds in ((s.then, True), (s.orelse, False)):
            if body:
                part = cond if holds else self.apply("not", [cond], "bool", cond.lanes)
                self.mask = self.both(outer, part)
                if self.decided(self.mask) is False:
                    continue
                self.scopes.append({})
                self.statements(body)
                self.scopes.pop()
        self.mask = outer

    def _while(self, s: While) -> None:
        n = self.fn.fresh("while")
        self.fn.emit(f"br label %{n}.test")
        self.fn.label(f"{n}.test")
        self.known.enter()
        self.enter()
        cond = self._condition(s.cond)
        self.fn.emit(f"br i1 {cond.text}, label %{n}.body, label %{n}.end")
        self.fn.label(f"{n}.body")
        self.scopes.append({})
        self.statements(s.body)
        self.scopes.pop()
        self.leave()
        self.known.leave()
        self.fn.emit(f"br label %{n}.test")
        self.fn.label(f"{n}.end")

    # loops

    def _loop(self, s: For) -> None:
        if s.kind == "parallel":
            self._parallel(s)
        elif s.kind == "vector":
            self._vector(s)
        elif s.kind == "bits":
            self._bits(s)
        elif self.is_unrolled(s):
            self._copies(s)
        elif not self.copies_block(s):
            self._parts(s)

    def _parts(self, s: For) -> None:
        """A loop; a short one in parts that decide its conditions."""
        parts = [Stretch(s.lo, s.hi, {})]
        if may_be_cut(s) and not opaques(s.lo) and not opaques(s.hi):
            known = {s.var, *self.variables}
            found = conditions(s.body, known, self.resolve)
            parts = stretches(s.var, self.resolve(s.lo), self.resolve(s.hi), found)
        for part in parts:
            outer, self.facts = self.facts, {**self.facts, **part.facts}
            if part.hi - part.lo == 1 and not opaques(part.lo):
                self.constants[s.var] = part.lo
                self.statements(s.body)
            else:
                var = s.var
                if len(parts) > 1 and isinstance(part.lo, int) and isinstance(part.hi, int):
                    var = Sym(s.var.name, part.lo, part.hi - 1)
                    self.constants[s.var] = from_atom(var)
                self._serial(var, *self._ends(part.lo, part.hi), s.body)
            self.constants.pop(s.var, None)
            self.facts = outer

    def _ends(self, lo: Size, hi: Size) -> tuple[str, str]:
        """A loop's bounds. What they loaded is forgotten: it may change."""
        self.scopes.append({})
        ends = self.size(lo), self.size(hi)
        forgotten = self.scopes.pop()
        if not opaques(lo) and not opaques(hi):
            self.scopes[-1].update(forgotten)
        return ends

    def _copies(self, s: For) -> None:
        lo, extent = self.resolve(s.lo), self.resolve(s.extent)
        assert isinstance(extent, int)
        block = self.vector is None and self.load_block(s)
        for n in range(extent):
            self.constants[s.var] = lo + n
            self.statements(s.body)
        self.constants.pop(s.var, None)
        if block:
            self.columns = {}

    def _vector(self, s: For) -> None:
        lo, extent = self.resolve(s.lo), self.resolve(s.extent)
        if self.vector is not None or not isinstance(extent, int) or lo != 0:
            self._serial(s.var, *self._ends(s.lo, s.hi), s.body)
            return
        if extent <= 1:
            self._copies(s)
            return
        outer, self.scopes = self.scopes, [*self.scopes, {}]
        self.vector, self.lanes = s.var, extent
        self.statements(s.body)
        self.vector, self.lanes = None, 0
        self.scopes = outer

    def _serial(self, var: Sym, lo: str, hi: str, body: Sequence[Stmt]) -> None:
        n = self.fn.fresh("loop")
        before = self.fn.block
        ahead = self.fn.head()
        if lo.isdigit() and hi.isdigit() and int(lo) < int(hi):
            self.fn.emit(f"br label %{n}.body")
        else:
            enter = self.fn.value(f"icmp slt i64 {lo}, {hi}")
            self.fn.emit(f"br i1 {enter}, label %{n}.body, label %{n}.end")
        self.fn.label(f"{n}.body")
        self.fn.emit(f"%{n}.i = phi i64 [ {lo}, %{before} ], [ %{n}.next, %{n}.latch ]")
        inner = not any(self._has_loops(s) for s in body)
        turns = Turns(n, before, lo, ahead, self.fn.head(), [], inner)
        self.enter_loop(var, turns)
        self.scopes.append({})
        self.known.enter()
        self.share_ahead(var, body)
        self.statements(body)
        self.ask_ahead(var, body)
        self.known.leave()
        self.scopes.pop()
        self.leave_loop(var)
        self.fn.emit(f"br label %{n}.latch")
        self.fn.label(f"{n}.latch")
        self.fn.lines += turns.latch
        wraps = "nsw" if var.lo is None or var.lo < 0 else "nuw nsw"
        self.fn.emit(f"%{n}.next = add {wraps} i64 %{n}.i, 1")
        again = self.fn.value(f"icmp slt i64 %{n}.next, {hi}")
        self.fn.emit(f"br i1 {again}, label %{n}.body, label %{n}.end")
        self.fn.label(f"{n}.end")

    def _bits(self, s: For) -> None:
        """Goes from each bit of a word that is set to the next one."""
        source, branch = word_of(s), s.body[0]
        assert source is not None and isinstance(branch, If)
        word = self._condition(source)
        t = self.type_of(word)
        n = self.fn.fresh("bits")
        before = self.fn.block
        some = self.fn.value(f"icmp ne {t} {word.text}, 0")
        self.fn.emit(f"br i1 {some}, label %{n}.body, label %{n}.end")
        ahead = self.fn.head()
        self.fn.label(f"{n}.body")
        self.fn.emit(f"%{n}.rest = phi {t} [ {word.text}, %{before} ], [ %{n}.next, %{n}.latch ]")
        place = self.fn.call(t, f"llvm.cttz.{t}", [(t, f"%{n}.rest"), ("i1", "true")])
        if t == "i64":
            self.fn.emit(f"%{n}.i = add nuw nsw i64 {place}, 0")
        else:
            self.fn.emit(f"%{n}.i = zext {t} {place} to i64")
        # The variable skips values: no step is added to anything from turn to turn.
        turns = Turns(n, before, "0", ahead, self.fn.head(), [], inner=False)
        self.enter_loop(s.var, turns)
        self.scopes.append({})
        self.known.enter()
        self.statements(branch.then)
        self.known.leave()
        self.scopes.pop()
        self.leave_loop(s.var)
        self.fn.emit(f"br label %{n}.latch")
        self.fn.label(f"{n}.latch")
        less = self.fn.value(f"add {t} %{n}.rest, -1")
        self.fn.emit(f"%{n}.next = and {t} %{n}.rest, {less}")
        again = self.fn.value(f"icmp ne {t} %{n}.next, 0")
        self.fn.emit(f"br i1 {again}, label %{n}.body, label %{n}.end")
        self.fn.label(f"{n}.end")

    def _parallel(self, s: For) -> None:
        """Hands the iterations to the pool: the body moves to a function of its own."""
        name = f"{self.name}.{self.fn.fresh('parallel')}"
        args, status, lo, hi, may_fail = self._loop_function(name, s, "")
        count = hi if lo == "0" else self.fn.value(f"sub nsw i64 {hi}, {lo}")
        pool, grain = self._sharing(s)
        self.fn.call(
            "void",
            "aicc_parallel_nest" if _has_parallel(s.body) else "aicc_parallel_for",
            [("ptr", pool), ("ptr", symbol(name)), ("ptr", args), ("i64", count), ("i64", grain)],
        )
        if may_fail:
            code = self.fn.value(f"load i32, ptr {status}, align 4")
            bad = self.fn.value(f"icmp ne i32 {code}, 0")
            after = self.fn.fresh("status")
            self.fn.emit(f"br i1 {bad}, label %{after}.fail, label %{after}.ok")
            self.fn.label(f"{after}.fail")
            self._return(code)
            self.fn.label(f"{after}.ok")

    def _apart(self, s: For) -> None:
        name = f"{self.name}.apart{len(self.fn.module.functions)}"
        args, _, lo, hi, _ = self._loop_function(name, s, "noinline")
        count = hi if lo == "0" else self.fn.value(f"sub nsw i64 {hi}, {lo}")
        self.fn.emit(f"call void {symbol(name)}(ptr {args}, i64 0, i64 {count})")

    def _sharing(self, s: For) -> tuple[str, str]:
        """The pool, or none where a run finds that the loop is too short to share; and how many
        iterations a thread takes at a time: so many that taking them costs little."""
        cycles = loop_cycles(self.kernel, s, self.target.lanes("f32"))
        if not symbols(cycles) <= set(self.variables) or opaques(cycles) or opaques(s.extent):
            return self.pool, "1"
        each = maximum(1, cycles // maximum(1, s.extent))
        grain = maximum(1, minimum(TAKEN_CYCLES // each, s.extent // PARTS))
        if isinstance(cycles, int):
            return self.pool, self.size(grain)
        short = self.fn.value(f"icmp slt i64 {self.size(cycles)}, {SHARED_CYCLES}")
        return self.fn.value(f"select i1 {short}, ptr null, ptr {self.pool}"), self.size(grain)

    def _loop_function(self, name: str, s: For, traits: str) -> tuple[str, str, str, str, bool]:
        """Writes a function of a loop's iterations, `void name(ptr args, i64 begin, i64 end)`. Its
        arguments, where it leaves the number of a failed check, the loop's bounds, and whether it
        may leave a number that is not 0."""
        # A buffer whose address goes elsewhere stays in memory: only what the loop uses does.
        inside = used([s])
        shared = [b for b in self.kernel.buffers if b.name in self.pointers and b.name in inside]
        values = [("ptr", self.pointers[b.name]) for b in shared]
        known = list(self.variables)  # sizes, and the loops around
        values += [("i64", self.variables[v]) for v in known]
        lo, hi = self._ends(s.lo, s.hi)
        values += [("i64", lo)]
        status = self.fn.at_entry("alloca i32, align 4")
        values += [("ptr", status)]
        nested = _has_parallel(s.body)
        values += [("ptr", self.pool)] if nested else []
        args = self.fn.at_entry(f"alloca [{len(values)} x i64], align 8")
        for n, (t, text) in enumerate(values):
            slot = self.fn.value(f"getelementptr i64, ptr {args}, i64 {n}")
            self.fn.emit(f"store {t} {text}, ptr {slot}, align 8")
        self.fn.emit(f"store i32 0, ptr {status}, align 4")
        header = f"define internal void {symbol(name)}(ptr %args, i64 %begin, i64 %end) nounwind"
        fn = FunctionWriter(self.fn.module, f"{header} {traits}".rstrip())
        self.known.forget()
        body = KernelFunction(self.kernel, self.target, fn, self.checks)
        body.name = name
        count = 0

        def argument(t: str) -> str:
            nonlocal count
            slot = fn.value(f"getelementptr i64, ptr %args, i64 {count}")
            count += 1
            return fn.value(f"load {t}, ptr {slot}, align 8, !invariant.load !{{}}")

        for b in shared:
            body.pointers[b.name] = argument("ptr")
        for v in known:
            body.variables[v] = argument("i64")
        body.constants = dict(self.constants)
        start = argument("i64")
        body.status = argument("ptr")
        if nested:
            body.pool = argument("ptr")
        body._allocate(s.body)
        body.heads.append(fn.head())
        begin = fn.value(f"add nsw i64 {start}, %begin")
        end = fn.value(f"add nsw i64 {start}, %end")
        body._serial(s.var, begin, end, s.body)
        body._return("0")
        fn.finish()
        return args, status, lo, hi, body.may_fail
