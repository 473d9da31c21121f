"""Reading WebAssembly's outermost structure: numbers, and sections by length. Core modules and components share it.

Everything read is within bounds or raises; the caller turns ValueError and IndexError into a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator

COMPONENT = b"\0asm\x0d\x00\x01\x00"
CORE_MODULE = b"\0asm\x01\x00\x00\x00"
MAX_SECTIONS = 100_000  # a Python trusted application has some hundred; an empty one takes two bytes


class Reader:
    """A position in bytes from outside."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.position = data, 0

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def number(self) -> int:
        """LEB128, unsigned, 32 bits."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number is too long")

    def count(self, most: int, what: str) -> int:
        """How many follow; raises ValueError when there are more than `most`."""
        value = self.number()
        if value > most:
            raise ValueError(f"{value} {what}, the limit is {most}")
        return value

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.position:
            raise ValueError("it is cut off")
        self.position += size
        return self.data[self.position - size : self.position]

    def name(self) -> str:
        return bytes(self.take(self.number())).decode()


def sections(wasm: bytes) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each section, in the order of the file."""
    reader = Reader(memoryview(wasm))
    reader.take(len(COMPONENT))
    count = 0
    while reader.position < len(wasm):
        count += 1
        if count > MAX_SECTIONS:
            raise ValueError(f"it has more than {MAX_SECTIONS} sections")
        section = reader.byte()
        yield section, reader.take(reader.number())


def encode_number(value: int) -> bytes:
    """LEB128, unsigned."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
