from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.amqp.codec import MAX_DEPTH, MAX_ELEMENTS, decode, encode
from edgeclave.simulator.amqp.types import (
    AmqpError,
    Array,
    Byte,
    Char,
    Decimal,
    Described,
    Float,
    Int,
    Integer,
    Long,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)

INTEGERS: tuple[type[Integer], ...] = (UByte, UShort, UInt, ULong, Byte, Short, Int, Long, Timestamp)
ascii_text = st.text(st.characters(codec="ascii"), max_size=300)


def integers_of(kind: type[Integer]) -> st.SearchStrategy[Integer]:
    return st.integers(kind.minimum, kind.maximum).map(kind)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=32).map(Float),
    st.text(max_size=300),
    st.binary(max_size=300),
    st.uuids(),
    ascii_text.map(Symbol),
    st.characters(codec="utf-8").map(Char),
    st.sampled_from((4, 8, 16)).flatmap(lambda size: st.binary(min_size=size, max_size=size)).map(Decimal),
    *map(integers_of, INTEGERS),
)
arrays = st.one_of(
    st.lists(st.text(max_size=9), max_size=9),
    st.lists(ascii_text.map(Symbol), max_size=9),
    st.lists(st.booleans(), max_size=9),
    st.lists(st.lists(scalars, max_size=3), max_size=3),
    *(st.lists(integers_of(kind), max_size=9) for kind in INTEGERS),
).map(Array)
values = st.recursive(
    st.one_of(scalars, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.text(max_size=9), integers_of(ULong)), inner, max_size=5),
        st.builds(Described, st.one_of(integers_of(ULong), ascii_text.map(Symbol)), inner),
    ),
    max_leaves=20,
)


@given(values)
def test_every_value_comes_back_as_it_went(value: Any) -> None:
    decoded = decode(encode(value))
    assert decoded == value
    assert type(decoded) is type(value)


@given(st.binary(max_size=200))
def test_garbage_is_a_value_or_a_decode_error(data: bytes) -> None:
    with suppress(AmqpError):
        decode(data)


@given(values, st.data())
def test_a_mangled_value_is_a_value_or_a_decode_error(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(AmqpError):
        decode(bytes(encoded))


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param("40", None, id="null"),
        pytest.param("5601", True, id="boolean of one octet"),
        pytest.param("43", 0, id="uint0"),
        pytest.param("5234", 0x34, id="smalluint"),
        pytest.param("44", 0, id="ulong0"),
        pytest.param("54ff", -1, id="smallint"),
        pytest.param("7300000041", "A", id="char"),
        pytest.param("a10568656c6c6f", "hello", id="str8"),
        pytest.param("b10000000568656c6c6f", "hello", id="str32"),
        pytest.param("45", [], id="list0"),
        pytest.param("c003024041", [None, True], id="list8"),
        pytest.param("c10602a101615207", {"a": 7}, id="map8"),
        pytest.param("e00402500102", Array([1, 2]), id="array8 of ubyte"),
    ],
)
def test_encodings_of_the_standard(encoded: str, expected: Any) -> None:
    assert decode(bytes.fromhex(encoded)) == expected


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x3f", id="unknown constructor"),
        pytest.param(b"\x56\x02", id="boolean of two"),
        pytest.param(b"\xa1\x05hell", id="string cut short"),
        pytest.param(b"\xa1\x01\xff", id="string that is not UTF-8"),
        pytest.param(b"\xa3\x01\x80", id="symbol that is not ASCII"),
        pytest.param(b"\x73\x7f\xff\xff\xff", id="character beyond Unicode"),
        pytest.param(b"\x40\x40", id="a second value"),
        pytest.param(b"\xc0\x02\x02\x40", id="list with fewer items than counted"),
        pytest.param(b"\xc0\x03\x01\x40\x40", id="list with more bytes than items"),
        pytest.param(b"\xc1\x02\x01\x40", id="map with a key and no value"),
        pytest.param(b"\xc1\x05\x04\x41\x40\x41\x40", id="map with a key twice"),
        pytest.param(b"\xc1\x03\x02\x45\x40", id="map with a list as a key"),
        pytest.param(b"\xf0" + struct.pack(">II", 5, 0xFFFFFFFF) + b"\x40", id="array of four billion nulls"),
        pytest.param(b"\xf0" + struct.pack(">II", 5, MAX_ELEMENTS) + b"\x45", id="array of empty lists over the limit"),
        pytest.param(b"\xd0" + struct.pack(">II", 0xFFFFFFF0, 1) + b"\x40", id="list larger than what is there"),
        pytest.param(b"\x00\x40" * 50_000 + b"\x40", id="fifty thousand described values nested"),
        pytest.param(b"\xc0\xff\x01" * (MAX_DEPTH + 1) + b"\x40", id="lists nested too deep"),
    ],
)
def test_malformed_values_are_refused(encoded: bytes) -> None:
    with pytest.raises(AmqpError) as caught:
        decode(encoded)
    assert caught.value.condition == "amqp:decode-error"


@pytest.mark.parametrize("kind", INTEGERS)
def test_an_integer_out_of_range_is_refused_where_it_is_made(kind: type[Integer]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        kind(kind.maximum + 1)
    with pytest.raises(ValueError, match="does not fit"):
        kind(kind.minimum - 1)


def test_what_amqp_has_no_type_for_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        encode(object())
    with pytest.raises(ValueError, match="one type"):
        encode(Array([1, "a"]))
