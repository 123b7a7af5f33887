"""Whole models of the published families, small: native code against onnxruntime."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import text_models
import vision_models
from judging import assert_agree, feed, runtime, same_bits

import aicc
from aicc.target import Target

MODELS: dict[str, Any] = {**vision_models.MODELS, **text_models.MODELS}
TARGETS = ["native", "x86-64-v3", "x86-64"]


def compiled(model: onnx.ModelProto, **options: Any) -> aicc.CompiledModel:
    made = aicc.compile(model.SerializeToString(), **options)
    assert isinstance(made, aicc.CompiledModel)
    return made


def sizes_of(name: str) -> tuple[dict[str, int], ...]:
    return text_models.SIZES.get(name, ({},))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, target: str) -> None:
    """One compiled model, every binding of its symbols: results, and bits for 1 and 2 threads."""
    if Target.from_name(target).missing_on_host():
        pytest.skip(f"this machine cannot run {target}")
    model = MODELS[name]()
    session = runtime(model)
    threads = (1, 2) if target == "native" else (1,)
    made = [compiled(model, threads=n, target=target) for n in threads]
    assert made[0].report().host_ops == ()
    for number, sizes in enumerate(sizes_of(name)):
        given = feed(model, sizes, number)
        results = made[0].run(None, given)
        assert_agree(session.run(None, given), results, f"{name} {sizes}", 1e-4, 1e-5)
        for other in made:
            assert same_bits(results, other.run(None, given))
    for m in made:
        m.close()


@pytest.mark.parametrize("name", ["bert", "resnet", "gpt_decode"])
def test_pinned_sizes(name: str) -> None:
    """Symbols that the user fixes become numbers, and results stay."""
    model = MODELS[name]()
    sizes = sizes_of(name)[-1]
    given = feed(model, sizes, 5)
    made = compiled(model, dims=sizes, threads=1)
    assert all(isinstance(d, int) for p in made.inputs for d in p.shape)
    assert_agree(runtime(model).run(None, given), made.run(None, given), name, 1e-4, 1e-5)


QUICK_TO_EVALUATE = ("mlp", "shufflenet", "bert", "gpt_decode")


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK_TO_EVALUATE else pytest.param(n, marks=pytest.mark.slow) for n in MODELS],
)
def test_every_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AICC_CHECK=3: what each pass made verifies, is read back from its text, and computes
    the same as before."""
    monkeypatch.setenv("AICC_CHECK", "3")
    compiled(MODELS[name](), threads=1).close()
