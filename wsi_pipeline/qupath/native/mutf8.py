"""Java's modified UTF-8: U+0000 as two bytes, characters beyond the BMP as two surrogates of three bytes each.

Java strings are sequences of UTF-16 units, and may hold a surrogate without its partner. Python strings can hold those
too, so every Java string has a Python string and comes back as the same bytes.
"""

from __future__ import annotations


def encode(text: str) -> bytes:
    """The bytes that `DataOutput.writeUTF` writes after the length."""
    if text.isascii() and "\0" not in text:
        return text.encode("ascii")
    units = text.encode("utf-16-be", "surrogatepass")
    if len(units) == 2 * len(text) and "\0" not in text:
        return text.encode("utf-8", "surrogatepass")
    split = "".join(chr(units[i] << 8 | units[i + 1]) for i in range(0, len(units), 2))
    return split.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")


def decode(data: bytes) -> str:
    """The string of these bytes.

    Raises
    ------
    ValueError
        The bytes are no modified UTF-8 (where Java raises `UTFDataFormatException`).
    """
    if data.isascii():
        return data.decode("ascii")
    try:
        text = data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return _join(_units(data))
    if any(c > "\uffff" for c in text):
        raise ValueError("a sequence of four bytes in modified UTF-8")
    return _join(text)


def _join(text: str) -> str:
    """Surrogate pairs become the characters that they stand for; single surrogates stay."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _units(data: bytes) -> str:
    """UTF-16 units by Java's own, lenient rules, which let a unit have more bytes than it needs."""
    units = []
    at = 0
    while at < len(data):
        first = data[at]
        size = 1 if first < 0x80 else 2 if first >> 5 == 0b110 else 3 if first >> 4 == 0b1110 else 0
        rest = data[at + 1 : at + size]
        if size == 0 or len(rest) != size - 1 or any(byte >> 6 != 0b10 for byte in rest):
            raise ValueError(f"byte {at} of a string does not fit modified UTF-8")
        unit = first if size == 1 else first & (0x1F if size == 2 else 0x0F)
        for byte in rest:
            unit = unit << 6 | byte & 0x3F
        units.append(chr(unit))
        at += size
    return "".join(units)
