import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.isolation.wire import WireError, pack, printable, unpack

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_values_come_back(value):
    assert unpack(pack(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data):
    try:
        assert unpack(pack(unpack(data))) == unpack(data) or "nan" in repr(unpack(data))
    except WireError:
        pass


@given(plain, st.data())
def test_what_is_cut_short_is_refused(value, data):
    encoded = pack(value)
    with pytest.raises(WireError):
        unpack(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize("value", [object(), {1: 2}, 2**200, b"x", [{"x": {3}}]])
def test_other_values_are_refused(value):
    with pytest.raises(WireError):
        pack(value)


def test_depth_is_bounded():
    value = []
    for _ in range(20):
        value = [value]
    with pytest.raises(WireError, match="levels"):
        pack(value)
    with pytest.raises(WireError, match="levels"):
        unpack(b"l\1\0\0\0" * 500)


@given(st.text() | st.binary(), st.integers(0, 50))
def test_printable_text(text, limit):
    shown = printable(text, limit)
    assert len(shown) <= limit and all(c.isprintable() or c in "\n\t" for c in shown)


def test_printable_leaves_prose_alone():
    assert printable("Größe ≤ 3\n\tok") == "Größe ≤ 3\n\tok"
    assert printable("\x1b[2J\u202e\ud800") == "\\x1b[2J\\u202e\\ud800"
