"""A program's native steps as LLVM text: one function for each run of steps between host steps.

    i32 @aicc_run_N(ptr context)        0, or the number (from 1) of a failed check
    i32 @aicc_enter(ptr context)

Straight calls with constant offsets where they are known, addresses and sizes from the context
(`aicc.runtime.context`) where they are not. Where a check fails, the step's number is left in the
context.

`aicc_enter` is `aicc_run_0` for a context that has Python's lists of arrays: it reads where the
data of each array are, and puts that into the words of inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

from aicc.codegen.kernel import check_messages
from aicc.codegen.writer import FunctionWriter, ModuleWriter
from aicc.runtime.context import (
    ARENA,
    CONSTANTS,
    DATA,
    FAILED,
    FIRST,
    INPUTS,
    ITEMS,
    OUTPUTS,
    POOL,
    Slots,
    slots,
)
from aicc.runtime.program import Call, Copy, Host, Program, Read
from aicc.tensor_ir.ir import Kernel


def program_text(program: Program, kernels: Mapping[str, Kernel]) -> str:
    """The LLVM text of `aicc_run_0`, `aicc_run_1`, ... in the order of the program's segments."""
    module = ModuleWriter()
    table = slots(program)
    checked = {name for name, k in kernels.items() if check_messages(k)}
    native = 0
    for begin, end in program.segments():
        if isinstance(program.steps[begin], Host | Read):
            continue
        fn = FunctionWriter(module, f"define i32 @aicc_run_{native}(ptr %context) nounwind")
        _Segment(program, kernels, table, checked, fn).steps(begin, end)
        native += 1
    if native:
        module.functions.append(_enter_text(len(program.inputs), len(program.outputs)))
    return module.text()


def _enter_text(inputs: int, outputs: int) -> str:
    return f"""define internal void @aicc_addresses(
    ptr %context, ptr %list, ptr %words, i64 %count) nounwind {{
entry:
  %items.word = getelementptr i64, ptr %context, i64 {ITEMS}
  %items.place = load i64, ptr %items.word, align 8
  %data.word = getelementptr i64, ptr %context, i64 {DATA}
  %data.place = load i64, ptr %data.word, align 8
  %items.at = getelementptr i8, ptr %list, i64 %items.place
  %items = load ptr, ptr %items.at, align 8
  br label %check
check:
  %n = phi i64 [ 0, %entry ], [ %next, %array ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %array, label %done
array:
  %item = getelementptr ptr, ptr %items, i64 %n
  %object = load ptr, ptr %item, align 8
  %at = getelementptr i8, ptr %object, i64 %data.place
  %data = load ptr, ptr %at, align 8
  %word = getelementptr ptr, ptr %words, i64 %n
  store ptr %data, ptr %word, align 8
  %next = add i64 %n, 1
  br label %check
done:
  ret void
}}
define i32 @aicc_enter(ptr %context) nounwind {{
  %inputs.at = getelementptr ptr, ptr %context, i64 {INPUTS}
  %outputs.at = getelementptr ptr, ptr %context, i64 {OUTPUTS}
  %inputs = load ptr, ptr %inputs.at, align 8
  %outputs = load ptr, ptr %outputs.at, align 8
  %to.inputs = getelementptr i64, ptr %context, i64 {FIRST}
  %to.outputs = getelementptr i64, ptr %context, i64 {FIRST + inputs}
  call void @aicc_addresses(ptr %context, ptr %inputs, ptr %to.inputs, i64 {inputs})
  call void @aicc_addresses(ptr %context, ptr %outputs, ptr %to.outputs, i64 {outputs})
  %code = call i32 @aicc_run_0(ptr %context)
  ret i32 %code
}}
"""


class _Segment:
    def __init__(
        self,
        program: Program,
        kernels: Mapping[str, Kernel],
        table: Slots,
        checked: set[str],
        fn: FunctionWriter,
    ) -> None:
        self.program = program
        self.kernels = kernels
        self.slots = table
        self.checked = checked
        self.fn = fn
        self.words: dict[tuple[str, int], str] = {}
        self.failures: list[tuple[int, str, str]] = []

    def word(self, kind: str, slot: int) -> str:
        """A word of the context, loaded once: nothing that runs changes it."""
        found = self.words.get((kind, slot))
        if found is None:
            at = self.fn.at_entry(f"getelementptr i64, ptr %context, i64 {slot}")
            found = self.words[kind, slot] = self.fn.at_entry(f"load {kind}, ptr {at}, align 8")
        return found

    def address(self, name: str) -> str:
        b, root = self.program.table[name], self.program.root(name)
        offset = (b.at or 0) if b.space == "view" else 0
        if root.space == "const":
            base, offset = self.word("ptr", CONSTANTS), offset + (root.at or 0)
        elif root.space == "arena" and root.at is not None:
            base, offset = self.word("ptr", ARENA), offset + root.at
        else:
            base = self.word("ptr", self.slots.addresses[root.name])
        return self.fn.value(f"getelementptr i8, ptr {base}, i64 {offset}") if offset else base

    def steps(self, begin: int, end: int) -> None:
        for number in range(begin, end):
            step = self.program.steps[number]
            if isinstance(step, Call):
                self._call(number, step)
            elif isinstance(step, Copy):
                self._copy(number, step)
        self.fn.emit("ret i32 0")
        if self.failures:
            self.fn.label("failed")
            steps = ", ".join(f"[ {n}, %{block} ]" for n, block, _ in self.failures)
            codes = ", ".join(f"[ {code}, %{block} ]" for _, block, code in self.failures)
            # Phi nodes come before all else in a block.
            step_ = self.fn.value(f"phi i64 {steps}")
            code_ = self.fn.value(f"phi i32 {codes}")
            at = self.fn.value(f"getelementptr i64, ptr %context, i64 {FAILED}")
            self.fn.emit(f"store i64 {step_}, ptr {at}, align 8")
            self.fn.emit(f"ret i32 {code_}")
        self.fn.finish()

    def _call(self, number: int, step: Call) -> None:
        kernel = self.kernels[step.kernel]
        operands, results = iter(step.operands), iter(step.results)
        args = [("ptr", self.word("ptr", POOL))]
        for b in kernel.params:
            args.append(("ptr", self.address(next(results if b.scope == "out" else operands))))
        args += [("i64", self.word("i64", self.slots.sizes[name])) for name in step.sizes]
        code = self.fn.call("i32", f'"{kernel.name}"', args)
        if kernel.name not in self.checked:
            return
        block = self.fn.block
        after = self.fn.fresh("step")
        bad = self.fn.value(f"icmp ne i32 {code}, 0")
        self.fn.emit(f"br i1 {bad}, label %failed, label %{after}")
        self.failures.append((number, block, code))
        self.fn.label(after)

    def _copy(self, number: int, step: Copy) -> None:
        count = self.program.table[step.source].nbytes
        slot = self.slots.copies.get(number)
        length = str(count) if slot is None else self.word("i64", slot)
        target, source = self.address(step.target), self.address(step.source)
        args = [("ptr", target), ("ptr", source), ("i64", length), ("i1", "false")]
        self.fn.call("void", "llvm.memcpy.p0.p0.i64", args)
