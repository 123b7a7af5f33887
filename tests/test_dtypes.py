import ml_dtypes
import numpy as np
import pytest

from aicc.dtypes import ALL, from_numpy, to_numpy


def test_names_of_types_and_numpy_types_are_one_to_one():
    for name in ALL:
        assert from_numpy(to_numpy(name)) == name
    assert to_numpy("bf16") == np.dtype(ml_dtypes.bfloat16)
    with pytest.raises(KeyError):
        from_numpy(np.complex64)
