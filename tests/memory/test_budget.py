import pytest

from aicc.memory.budget import parse_bytes, show_bytes


@pytest.mark.parametrize(
    ("text", "number"),
    (
        (1000, 1000),
        ("1000", 1000),
        ("2MiB", 2 << 20),
        ("1.5 MB", 1_500_000),
        (" .5 kib ", 512),
        ("3 GiB", 3 << 30),
        ("64kB", 64_000),
        ("12 B", 12),
    ),
)
def test_amounts(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize(
    "text", ("", "MiB", "2 miles", "-1", "1.2.3MB", "0", 0, -5, True, 1.5, None)
)
def test_what_is_no_amount(text):
    with pytest.raises(ValueError):
        parse_bytes(text)


def test_amounts_are_shown_exactly():
    assert show_bytes(1000) == "1000 bytes"
    assert show_bytes(1536) == "1.500 KiB (1536 bytes)"
    assert show_bytes(3 << 20) == "3.000 MiB (3145728 bytes)"
