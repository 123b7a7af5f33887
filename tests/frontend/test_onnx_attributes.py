"""The table of attributes says what ONNX's schemas say."""

from collections import defaultdict

import onnx
import pytest

from aicc.errors import OperatorError
from aicc.frontend.attributes import _FIELD_KINDS, check_attributes, check_kinds, schema_of
from aicc.frontend.importer import NEWEST_OPSET
from aicc.frontend.onnx_attributes import _attributes, attribute_kind
from aicc.ops.registry import all_operators


def schemas():
    """Operator -> opset from which on a schema holds -> the schema."""
    found = defaultdict(dict)
    for s in onnx.defs.get_all_schemas_with_history():
        if not s.domain and s.since_version <= NEWEST_OPSET:
            found[s.name][s.since_version] = s
    return found


def test_the_table_is_what_the_schemas_are():
    every = schemas()
    kinds = {int(number): kind for kind, number in _FIELD_KINDS.items()}
    known = {op.name for op in all_operators()} | {"Constant"}
    expected = set()
    for name, versions in every.items():
        for opset in range(min(versions), NEWEST_OPSET + 1) if name in known else ():
            schema = versions[max(v for v in versions if v <= opset)]
            for a in schema.attributes.values():
                kind = kinds.get(int(a.type.value))
                if kind is not None:
                    expected.add((name, opset, a.name, kind))
    newest = max(s.since_version for v in every.values() for s in v.values())
    found = {
        (op, opset, name, attribute_kind(op, opset, name))
        for op, name in _attributes()
        for opset in range(min(every[op]), newest + 1)
    }
    found = {entry for entry in found if entry[3] is not None}
    assert found == {entry for entry in expected if entry[1] <= newest}


@pytest.mark.parametrize(
    ("attributes", "opset"),
    [
        ({"allowzero": 1}, 13),  # not there yet
        ({"shape": [1]}, 13),  # not there any more
        ({"allowzero": 1.0}, 14),
        ({"nothing": 1}, 14),
    ],
)
def test_what_is_wrong_is_told_as_the_schema_tells_it(attributes, opset):
    given = [onnx.helper.make_attribute(k, v) for k, v in attributes.items()]
    with pytest.raises(OperatorError) as told:
        check_attributes(given, "Reshape", opset, "", {})
    with pytest.raises(OperatorError) as expected:
        check_kinds(given, schema_of("Reshape", opset, ""), {})
    assert str(told.value) == str(expected.value)


def test_what_is_right_needs_no_schema(monkeypatch):
    monkeypatch.setattr("aicc.frontend.attributes.schema_of", None)
    given = [onnx.helper.make_attribute("allowzero", 1)]
    check_attributes(given, "Reshape", 14, "", {})
    with pytest.raises(TypeError):
        check_attributes(given * 2, "Reshape", 14, "", {})
