"""The interpreter: what a kernel means, on numpy arrays.

Every scalar has exactly the dtype that the IR gives it and every operation the meaning that
`aicc.tensor_ir.scalar` gives it; nothing is reordered, widened or skipped. Loops of all kinds run
one iteration after the other. `select` evaluates only the operand that it chooses. Locals start
filled with poison (NaN; a recognisable integer; true), so that a read before a write shows, and
stack and register buffers again in each iteration of a parallel loop, because no value passes
between the threads that share its iterations.

A kernel is translated to one Python function, once; an error leads back from the function's line to
the statement it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from aicc.dtypes import is_float, to_numpy
from aicc.errors import ExecutionError, IRError
from aicc.symbolic import FloorDiv, Min, Mod, Opaque, Size, Sym, evaluate, lo_of
from aicc.tensor_ir.dependence import used_across
from aicc.tensor_ir.ir import (
    LOCAL_SCOPES,
    Buffer,
    Check,
    Const,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    While,
)
from aicc.tensor_ir.scalar import OPS, cast_value
from aicc.tensor_ir.scalar import evaluate as evaluate_op
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.verify import verify

Array = NDArray[Any]

# On numpy scalars of one dtype, other than bool, these are the ufuncs of `scalar.OPS`, but quicker.
_INFIX = {"add": "+", "sub": "-", "mul": "*"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_MAX_EXPR_DEPTH = 20  # Python allows 200 nested parentheses; deeper parts become functions
_MAX_BLOCK_DEPTH = 12  # and 20 nested loops
_POISON = 0x5B5B5B5B5B5B5B5B


def run(kernel: Kernel, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> None:
    """Executes `kernel` in place on `arrays`, one for each parameter, with a value for each size.

    Raises ExecutionError where a check fails, and IRError where the kernel breaks an invariant, an
    index is outside its buffer, or an array does not fit its declaration.
    """
    _translate(kernel)(arrays, sizes)


class _OutsideError(IndexError):
    pass


def _outside(buffer: str, indices: tuple[int, ...]) -> NoReturn:
    raise _OutsideError(f"index {list(indices)} is outside {buffer}")


def _bounded(value: Any, lo: int | None, hi: int | None) -> int:
    number = int(value)
    if (lo is not None and number < lo) or (hi is not None and number > hi):
        raise _OutsideError(f"the index {number} is outside its bounds {lo}..{hi}")
    return number


def _fail(message: str) -> NoReturn:
    raise ExecutionError(message)


def poison(dtype: str) -> Any:
    """The value that an element of a local has before it is written."""
    if is_float(dtype):
        return to_numpy(dtype).type("nan")
    if dtype == "bool":
        return np.True_
    return cast_value(np.int64(_POISON), dtype)


@lru_cache(maxsize=512)
def _translate(kernel: Kernel) -> Callable[[Mapping[str, Array], Mapping[str, int]], None]:
    verify(kernel)
    with np.errstate(all="ignore"):  # a constant too large for its type is an infinity
        source = _Source(kernel)
    filename = f"<kernel {kernel.name}>"
    exec(compile("\n".join(source.lines), filename, "exec", dont_inherit=True), source.names)
    function = source.names["kernel"]

    def invoke(arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> None:
        known = _check_sizes(kernel, sizes)
        operands = [_operand(kernel, b, arrays, known) for b in kernel.buffers]
        try:
            with np.errstate(all="ignore"):
                function(*(known[s.name] for s in kernel.sizes), *operands)
        except (IndexError, ArithmeticError, ValueError) as fault:
            if isinstance(fault, IRError):
                raise
            owner, trace = None, fault.__traceback__
            while trace is not None:
                if trace.tb_frame.f_code.co_filename == filename:
                    owner = source.owners[trace.tb_lineno - 1]
                trace = trace.tb_next
            raise IRError(f"{fault}, in\n{print_kernel(kernel, owner)}") from None

    return invoke


def _check_sizes(kernel: Kernel, sizes: Mapping[str, int]) -> dict[str, int]:
    known = {}
    for s in kernel.sizes:
        if s.name not in sizes:
            raise IRError(f"kernel @{kernel.name}: no value for the size {s}")
        value = known[s.name] = int(sizes[s.name])
        if (s.lo is not None and value < s.lo) or (s.hi is not None and value > s.hi):
            raise IRError(f"kernel @{kernel.name}: {s} = {value} is outside {s.lo}..{s.hi}")
    return known


def _operand(
    kernel: Kernel, b: Buffer, arrays: Mapping[str, Array], sizes: Mapping[str, int]
) -> Array:
    shape = tuple(evaluate(d, sizes) for d in b.shape)
    dtype = to_numpy(b.dtype)
    if b.scope in LOCAL_SCOPES:
        return np.full(shape, poison(b.dtype), dtype)
    array = arrays.get(b.name)
    if array is None:
        raise IRError(f"kernel @{kernel.name}: no array for the parameter {b.name}")
    if array.dtype != dtype or array.shape != shape:
        raise IRError(
            f"kernel @{kernel.name}: {b.name} is {dtype}{list(shape)}, "
            f"the array is {array.dtype}{list(array.shape)}"
        )
    return array


class _Source:
    """A kernel as Python text; `owners` gives the statement that each line came from."""

    def __init__(self, kernel: Kernel) -> None:
        self.lines: list[str] = []
        self.owners: list[Stmt | None] = []
        self.names: dict[str, Any] = {
            "outside": _outside,
            "bounded": _bounded,
            "fail": _fail,
            "i64": np.int64,
        }
        self._kernel = kernel
        self._interned: dict[Any, str] = {}
        self._buffers = {b.name: f"b{n}" for n, b in enumerate(kernel.buffers)}
        self._vars: dict[str, str] = {s.name: f"s{n}" for n, s in enumerate(kernel.sizes)}
        self._shared: frozenset[str] = frozenset()
        """What an iteration of a parallel loop around has for itself."""
        self._indent = 0
        self._owner: Stmt | None = None
        self._fresh = 0
        params = ", ".join([*self._vars.values(), *self._buffers.values()])
        self._emit(f"def kernel({params}):")
        with self._indented():
            self._body(kernel.body, 1)

    def _emit(self, text: str) -> None:
        self.lines.append(" " * self._indent + text)
        self.owners.append(self._owner)

    @contextmanager
    def _indented(self) -> Iterator[None]:
        self._indent += 1
        yield
        self._indent -= 1

    def _name(self, prefix: str) -> str:
        self._fresh += 1
        return f"{prefix}{self._fresh}"

    def _intern(self, key: Any, make: Callable[[], Any]) -> str:
        """A global name for an object that the function uses."""
        if key not in self._interned:
            name = self._interned[key] = self._name("g")
            self.names[name] = make()
        return self._interned[key]

    # statements

    def _body(self, body: tuple[Stmt, ...], depth: int) -> None:
        if depth % _MAX_BLOCK_DEPTH == 0:
            name = self._name("f")
            self._emit(f"def {name}():")
            with self._indented():
                self._body(body, depth + 1)
            self._emit(f"{name}()")
            return
        for s in body:
            self._owner = s
            self._stmt(s, depth)
        if not body:
            self._emit("pass")

    def _stmt(self, s: Stmt, depth: int) -> None:
        if isinstance(s, For):
            var = self._vars[s.var.name] = self._name("v")
            own = self._own(s) if s.kind == "parallel" else []
            private = [f"{self._buffers[b.name]}.fill({self._poison(b.dtype)})" for b in own]
            shared, self._shared = self._shared, self._shared | {b.name for b in own}
            self._emit(f"for {var} in range({self._size(s.lo)}, {self._size(s.hi)}):")
            with self._indented():
                for fill in private:
                    self._emit(fill)
                self._body(s.body, depth + 1)
            for fill in private:
                self._emit(fill)
            self._shared = shared
        elif isinstance(s, Store | Reduce):
            target = self._target(s)
            value = self._expr(s.value)
            if isinstance(s, Store):
                self._emit(f"{target} = {value}")
            else:
                dtype = s.value.dtype
                self._emit(f"{target} = {self._apply(s.op, dtype, dtype, [target, value])}")
        elif isinstance(s, If):
            self._emit(f"if {self._expr(s.cond)}:")
            with self._indented():
                self._body(s.then, depth + 1)
            if s.orelse:
                self._emit("else:")
                with self._indented():
                    self._body(s.orelse, depth + 1)
        elif isinstance(s, While):
            self._emit(f"while {self._expr(s.cond)}:")
            with self._indented():
                self._body(s.body, depth + 1)
        else:
            assert isinstance(s, Check)
            self._emit(f"if not {self._expr(s.cond)}: fail({s.message!r})")

    def _own(self, s: For) -> list[Buffer]:
        """The buffers that an iteration of a parallel loop has for itself."""
        used = used_across(s.body) - self._shared
        buffers = [self._kernel.buffer(name) for name in sorted(used)]
        return [b for b in buffers if b.scope in ("stack", "register")]

    def _poison(self, dtype: str) -> str:
        return self._intern((dtype, "poison"), lambda: poison(dtype))

    def _target(self, s: Store | Reduce) -> str:
        element, guard, outside = self._element(s.buffer, s.indices)
        if guard:
            self._emit(f"if not {guard}: {outside}")
        return element

    def _element(self, buffer: str, indices: tuple[Size, ...]) -> tuple[str, str, str]:
        """An element, the condition that no index is negative, and what to do where one is.

        numpy reports an index past the end, but takes a negative one to count from there.
        """
        items, checked = [], []
        for i in indices:
            text, lo = self._size(i), lo_of(i)
            if lo is None or lo < 0:
                name = self._name("t")
                checked.append(f"({name} := {text})")
                text = name
            items.append(text)
        joined = ", ".join(items)
        guard = f"({' | '.join(checked)}) >= 0" if checked else ""
        outside = f"outside({buffer!r}, ({joined},))"
        return f"{self._buffers[buffer]}[{joined or '()'}]", guard, outside

    # expressions

    def _expr(self, e: Expr, depth: int = 1) -> str:
        if depth % _MAX_EXPR_DEPTH == 0:
            name = self._name("e")
            self._emit(f"def {name}():")
            with self._indented():
                self._emit(f"return {self._expr(e, depth + 1)}")
            return f"{name}()"
        if isinstance(e, Const):
            value = e.value
            return self._intern((e, "const"), lambda: to_numpy(e.dtype).type(value))
        if isinstance(e, Load):
            element, guard, outside = self._element(e.buffer, e.indices)
            return f"({element} if {guard} else {outside})" if guard else element
        if isinstance(e, Index):
            value64 = f"i64({self._size(e.size, depth)})"
            return (
                value64
                if e.dtype == "i64"
                else self._apply(f"cast.{e.dtype}", e.dtype, "i64", [value64])
            )
        assert isinstance(e, Op)
        args = [self._expr(a, depth + 1) for a in e.args]
        return self._apply(e.name, e.dtype, e.args[-1].dtype, args)

    def _apply(self, name: str, dtype: str, operand: str, args: list[str]) -> str:
        """`name(*args)` with a result of `dtype` from operands of `operand`."""
        if name == "select":
            return f"({args[1]} if {args[0]} else {args[2]})"
        symbol = _COMPARE.get(name) or (_INFIX.get(name) if operand != "bool" else None)
        if symbol:
            return f"({args[0]} {symbol} {args[1]})"
        made = self._intern((name, dtype), lambda: _function(name, dtype))
        return f"{made}({', '.join(args)})"

    def _size(self, s: Size, depth: int = 1) -> str:
        if isinstance(s, int):
            return str(s)
        parts = [str(s.const)] if s.const else []
        for monomial, coef in s.terms:
            factors = [self._atom(a, depth) for a in monomial]
            parts.append("*".join(factors if coef == 1 else [*factors, f"({coef})"]))
        return f"({' + '.join(parts)})" if len(parts) > 1 else parts[0]

    def _atom(self, a: Any, depth: int) -> str:
        if isinstance(a, Sym):
            return self._vars[a.name]
        if isinstance(a, Opaque):
            return f"bounded({self._expr(a.payload, depth + 1)}, {a.lo}, {a.hi})"
        if isinstance(a, FloorDiv | Mod):
            num, den = self._size(a.num, depth), self._size(a.den, depth)
            return f"(({num}) {'//' if isinstance(a, FloorDiv) else '%'} ({den}))"
        name = "min" if isinstance(a, Min) else "max"
        return f"{name}({self._size(a.a, depth)}, {self._size(a.b, depth)})"


def _function(name: str, dtype: str) -> Callable[..., Any]:
    """`scalar.evaluate` for one operation, without its search at each call."""
    if name.startswith(("cast.", "bitcast.")):
        return lambda value: evaluate_op(name, [value], dtype)
    meaning, result = OPS[name].meaning, to_numpy(dtype).type
    return lambda *args: result(meaning(*args))
