"""Ways to damage a film; each mutant follows from its seed and number alone."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from fuzz_corpus import Base
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

__all__ = ["KINDS", "Mutant", "mutate"]

_REAL_SHARE = 0.01
_INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_SIDES = (0, 1, 2, 57, 71, 255, 4096, 8191, 8192, 16384, 32767, 65535)
_BAD_PAIRS = (
    *("nan\\nan", "inf\\inf", "-0.143\\-0.143", "0\\0", "1e400\\1e400", "0.143", "0.1\\0.1\\0.1", "1e-9\\1e-9"),
    *("0,143\\0,143", "0.143mm\\0.143mm", "\\", "0.143\\", "\x00\x00", "143\\143", "0x1\\0x1", "1_0\\1_0", "\u00b2\\1"),
)
_BAD_TEXTS = ("", "MONOCHROME3", "PALETTE COLOR", "MONOCHROME1\\MONOCHROME2", "A" * 5000, "\x00", "\xff\xfe", "'; --")
_BAD_NUMBERS = ("nan", "inf", "-inf", "1e400", "0", "-1e308", "9" * 400, "--1", "1\\2", "", "\x00", "0.0000001")
_BAD_SHORTS = (b"", b"\x00", b"\x00\x00", b"\xff\xff", b"\x01\x00\x02\x00", b"\x20\x00", b"\x80\x00", b"\x01")
_PAIRS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_TEXTS = ("PhotometricInterpretation", "PresentationLUTShape", "VOILUTFunction", "PixelSpacingCalibrationType")
_NUMBERS = (
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "NumberOfFrames"),
    "EstimatedRadiographicMagnificationFactor",
)
_SHORTS = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)
_OTHERS = ("SOPClassUID", "PixelData", "ModalityLUTSequence", "VOILUTSequence", "ExtendedOffsetTable")

Random = np.random.Generator


@dataclass(frozen=True)
class Mutant:
    """A damaged film.

    Attributes:
        base: the sound film.
        kind: how it was damaged.
        data: its bytes.
        stated: whether the damage itself is a readable statement of another spacing or polarity: bytes changed within
            the attribute that states it, such an attribute taken out whole, or another film's in its place.
    """

    base: Base
    kind: str
    data: bytes
    stated: bool


def mutate(corpus: Sequence[Base], seed: int, number: int) -> Mutant:
    """Make one mutant.

    Args:
        corpus: see :func:`fuzz_corpus.build_corpus`.
        seed: of the whole run.
        number: of the mutant.

    Returns:
        The mutant.
    """
    random = np.random.default_rng([seed, number])
    small, real = ([base for base in corpus if base.name.startswith("real-") is is_real] for is_real in (False, True))
    chosen = real if real and random.random() < _REAL_SHARE else small
    base = chosen[random.integers(len(chosen))]
    kinds = [kind for kind in KINDS if base.kind == "dicom" or kind not in _DICOM_ONLY]
    kind = kinds[random.integers(len(kinds))]
    data, touched, edited = KINDS[kind](base, random, chosen)
    flipped = any(a < stop and start < b for start, stop in base.meaning for a, b in touched)
    return Mutant(base, kind, data, edited or flipped or _within_one(base, data) or _whole_elements_gone(base, data))


def _within_one(base: Base, data: bytes) -> bool:
    """Whether all that differs lies within one attribute that states spacing or polarity."""
    head, tail = _common(base.data, data)
    return any(start <= head and len(base.data) - tail <= stop for start, stop in base.meaning)


def _whole_elements_gone(base: Base, data: bytes) -> bool:
    """Whether the film is the sound one without some neighboring attributes."""
    gone, (head, _) = len(base.data) - len(data), _common(base.data, data)
    starts = [start for start, _, _ in base.elements]
    ends = {end for _, _, end in base.elements}
    return gone > 0 and any(
        start + gone in ends and base.data[:start] + base.data[start + gone :] == data
        for start in starts
        if start <= head
    )


def _common(first: bytes, second: bytes) -> tuple[int, int]:
    """Lengths of the common beginning and of the common end behind it."""
    shorter = min(len(first), len(second))
    a, b = (np.frombuffer(data, np.uint8) for data in (first, second))
    different = np.flatnonzero(a[:shorter] != b[:shorter])
    head = int(different[0]) if len(different) else shorter
    rest = shorter - head
    different = np.flatnonzero(a[len(a) - rest :][::-1] != b[len(b) - rest :][::-1])
    return head, int(different[0]) if len(different) else rest


Touched = list[tuple[int, int]]
_Result = tuple[bytes, Touched, bool]


def _place(base: Base, random: Random) -> int:
    """Anywhere, the header as often as the pixels."""
    return int(random.integers(base.header if random.random() < 0.7 else len(base.data)))


def _flip_bits(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    data, touched = bytearray(base.data), []
    for _ in range(int(random.choice([1, 1, 1, 2, 4, 8]))):
        at = _place(base, random)
        data[at] ^= 1 << int(random.integers(8))
        touched.append((at, at + 1))
    return bytes(data), touched, False


def _set_bytes(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    data, touched = bytearray(base.data), []
    for _ in range(int(random.choice([1, 1, 2, 4]))):
        at = _place(base, random)
        data[at] = int(random.choice([0, 255, 92, 32, random.integers(256)]))
        touched.append((at, at + 1))
    return bytes(data), touched, False


def _truncate(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    return base.data[: _place(base, random)], [], False


def _delete(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    at = _place(base, random)
    count = int(random.choice([1, 2, 4, 8, 16, random.integers(1, 200)]))
    return base.data[:at] + base.data[at + count :], [], False


def _insert(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    at = _place(base, random)
    new = random.bytes(int(random.choice([1, 2, 4, 8, random.integers(1, 200)])))
    return base.data[:at] + new + base.data[at:], [], False


def _repeat(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    at = _place(base, random)
    block = base.data[at : at + int(random.integers(1, 100))]
    return base.data[:at] + block * int(random.choice([2, 2, 3, 500])) + base.data[at:], [], False


def _blank(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    at = _place(base, random)
    stop = min(len(base.data), at + int(random.integers(1, 300)))
    fill = bytes([int(random.choice([0, 255]))])
    return base.data[:at] + fill * (stop - at) + base.data[stop:], [], False


def _splice(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    """A part of another film; it may bring the other film's spacing as a whole, which no reader can know."""
    other = corpus[random.integers(len(corpus))]
    at, start = _place(base, random), _place(other, random)
    if random.random() < 0.5:
        start = min(at, len(other.data))
    count = int(random.choice([8, 64, random.integers(1, 4000)]))
    return base.data[:at] + other.data[start : start + count] + base.data[at + count :], [], True


def _words(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    """Numbers of the header, whatever they mean: lengths, offsets, sizes."""
    data, touched = bytearray(base.data), []
    for _ in range(int(random.integers(1, 3))):
        size = int(random.choice([2, 4]))
        at = int(random.integers(0, max(base.header - size, 1)))
        number = int(random.choice(_SIDES if random.random() < 0.5 else _INTEGERS)) & (256**size - 1)
        data[at : at + size] = number.to_bytes(size, "little" if random.random() < 0.5 else "big")
        touched.append((at, at + size))
    return bytes(data[: max(len(base.data), 1)]), touched, False


def _lengths(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    """Length of a DICOM element: adversarial, a little off, or so that it swallows the elements behind it."""
    start, value, end = base.elements[random.integers(len(base.elements))]
    data = bytearray(base.data)
    size = 4 if value - start == 12 else 2
    order = "big" if base.name == "big" else "little"
    if base.name == "implicit":
        size = 4
    later = [stop for _, _, stop in base.elements if stop > end]
    swallow = int(random.choice(later)) - value if later else 0
    choices = [random.choice(_INTEGERS), end - value + random.integers(-16, 17), swallow, random.integers(2**16)]
    number = int(choices[random.integers(len(choices))]) & (256**size - 1)
    data[value - size : value] = number.to_bytes(size, order)
    return bytes(data), [(value - size, value)], False


def _drop_element(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    """An element taken out whole: what remains states what it states."""
    start, _, end = base.elements[random.integers(len(base.elements))]
    return base.data[:start] + base.data[end:], [], True


def _tags(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    """Adversarial values in the attributes that a reader looks at."""
    film = dcmread(io.BytesIO(base.data))
    groups: tuple[tuple[Sequence[str], Sequence[str | bytes]], ...] = (
        (_PAIRS, _BAD_PAIRS),
        (_TEXTS, _BAD_TEXTS),
        (_NUMBERS, _BAD_NUMBERS),
        (_SHORTS, _BAD_SHORTS),
        (_OTHERS, (b"", b"\x00" * 8, b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"1.2\x00")),
    )
    little, implicit = base.name != "big", base.name == "implicit"
    for _ in range(int(random.integers(1, 3))):
        keywords, values = groups[random.integers(len(groups))]
        tag = Tag(tag_for_keyword(keywords[random.integers(len(keywords))]) or 0)
        chosen = values[random.integers(len(values))]
        raw = chosen.encode("utf-8") if isinstance(chosen, str) else chosen
        film[tag] = RawDataElement(tag, dictionary_VR(tag)[:2], len(raw), raw, 0, implicit, little)
    stream = io.BytesIO()
    try:
        film.save_as(stream)
    except Exception:  # pydicom may refuse to write what it read
        return _set_bytes(base, random, corpus)
    return stream.getvalue(), [], True


def _dimensions(base: Base, random: Random, corpus: Sequence[Base]) -> _Result:
    """Rows and columns, in the DICOM header and in the compressed image; or anywhere in a picture's header."""
    data = bytearray(base.data)
    sides = [int(random.choice(_SIDES)) for _ in range(2)]
    if random.random() < 0.3:  # the same number of pixels, or one side only
        sides = [base.size[0] * 2, base.size[1] // 2] if random.random() < 0.5 else [base.size[0], sides[1]]
    for order in (1, -1):
        for code in (">HH", "<HH", ">II", "<II"):
            old, new = (struct.pack(code, *pair[::order]) for pair in (base.size, [side & 0xFFFF for side in sides]))
            at = data.find(old)
            if 0 <= at < len(data) - len(old):
                data[at : at + len(old)] = new
    if base.kind == "dicom":
        film = dcmread(io.BytesIO(bytes(data)))
        film.Rows, film.Columns = sides
        stream = io.BytesIO()
        film.save_as(stream)
        return stream.getvalue(), [], False
    rows, columns = base.size
    return bytes(data).replace(f"{columns} {rows}".encode(), f"{sides[1]} {sides[0]}".encode()), [], False


KINDS: dict[str, Callable[[Base, Random, Sequence[Base]], _Result]] = {
    "flip bits": _flip_bits,
    "set bytes": _set_bytes,
    "truncate": _truncate,
    "delete": _delete,
    "insert": _insert,
    "repeat": _repeat,
    "blank": _blank,
    "splice": _splice,
    "words": _words,
    "dimensions": _dimensions,
    "lengths": _lengths,
    "drop element": _drop_element,
    "tags": _tags,
}
_DICOM_ONLY = ("lengths", "drop element", "tags")
