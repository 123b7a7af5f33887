"""A schedule in the making: the kernel as it stands, and the steps that led there."""

from __future__ import annotations

from collections.abc import Callable

from aicc.errors import ScheduleError
from aicc.tensor_ir.analysis import Stage, find_loop, stage_of, stages
from aicc.tensor_ir.ir import For, Kernel
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.schedule import Step


class Plan:
    """Applies steps one by one and records them."""

    def __init__(self, kernel: Kernel, target: Machine) -> None:
        self.kernel = kernel
        self.target = target
        self.steps: list[Step] = []

    def do(self, *steps: Step) -> None:
        for step in steps:
            self.kernel = step.apply(self.kernel)
            self.steps.append(step)

    def attempt(self, *steps: Step) -> bool:
        """`do`, or nothing at all where a precondition does not hold."""
        kernel, n = self.kernel, len(self.steps)
        try:
            self.do(*steps)
        except ScheduleError:
            self.kernel = kernel
            del self.steps[n:]
            return False
        return True

    def attempt_if(self, good: Callable[[Kernel], bool], *steps: Step) -> bool:
        """`attempt`, undone where the result is not `good`."""
        kernel, n = self.kernel, len(self.steps)
        if self.attempt(*steps):
            if good(self.kernel):
                return True
            self.kernel = kernel
            del self.steps[n:]
        return False

    def stage(self, buffer: str) -> Stage:
        found = stage_of(self.kernel, buffer)
        if found is None:
            raise ScheduleError(f"{buffer} is not computed by one stage", self.kernel)
        return found

    def stages(self) -> list[Stage]:
        return stages(self.kernel)

    def loop(self, name: str) -> For:
        found = find_loop(self.kernel, name)
        if found is None:
            raise ScheduleError(f"there is no loop over {name}", self.kernel)
        return found

    def has_loop(self, name: str) -> bool:
        return find_loop(self.kernel, name) is not None

    def newest_buffer(self) -> str:
        return self.kernel.buffers[-1].name
