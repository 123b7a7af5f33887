"""The schedule step for kernels of which the sizes choose between two bodies."""

from __future__ import annotations

from dataclasses import dataclass

from aicc.tensor_ir.choice import choice_of, choose_between
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.schedule import Step, schedule


@dataclass(frozen=True)
class Sides(Step):
    """if c: A else: B   ->   if c: A after the steps `then` else: B after the steps `orelse`

    Each is scheduled as a kernel of its own (`aicc.tensor_ir.choice`). then, orelse: schedules as
    text. Precondition: nothing but sizes chooses between the two; those of each schedule's steps.
    """

    then: str
    orelse: str
    name = "sides"

    def apply(self, kernel: Kernel) -> Kernel:
        from aicc.tensor_ir.schedule_text import parse_steps

        choice = choice_of(kernel)
        if choice is None:
            raise self.fail(kernel, "the kernel is no choice between two by sizes")
        then = schedule(choice.then, parse_steps(self.then))
        return choose_between(choice.cond, then, schedule(choice.orelse, parse_steps(self.orelse)))
