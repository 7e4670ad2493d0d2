"""The order and the lengths of a DICOM file's attributes, looked at while it is read.

DICOM has no checksum. One wrong length makes a parser skip attributes, the pixel spacing among them, and go on as if
they had never been there; so every attribute is held against what the format itself says: it fits into the file, comes
after the one before (PS3.5 7.1), has a known representation (6.2), and text holds no bytes that are not text. Values
that are not asked for are looked at for such bytes alone, and never kept.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydicom import FileDataset
from pydicom.datadict import dictionary_VR
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.valuerep import VR

__all__ = ["read_attributes"]

_UNDEFINED = 0xFFFFFFFF
_FIRST_TAG = 0x00080000
_ITEM = 0xFFFEE000
_KNOWN = frozenset(str(vr) for vr in VR if len(vr) == 2)
_TEXT = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_LONGEST_TEXT = 2**16
# All but tab, line feed, form feed, carriage return, and the escape that changes the character set.
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
# Acquisition, image and presentation: what decides how a film is measured and shown.
_GROUPS = (0x0018, 0x0028, 0x2050)


def read_attributes(file: Path, keywords: Collection[str], *, implicit: bool) -> FileDataset:
    """Read some attributes of a file, and look at the frame of all others.

    Args:
        file: a DICOM Part 10 file.
        keywords: of the attributes to read.
        implicit: whether the file leaves value representations out.

    Returns:
        The data set with these attributes.

    Raises:
        ValueError: the file is damaged.
        Exception: whatever pydicom raises for a file that it cannot parse.
    """
    with _BoundedReader(io.FileIO(file)) as stream:
        tags = [Tag(keyword) for keyword in keywords]
        return read_partial(stream, _Frame(stream, implicit), specific_tags=list(tags))


class _BoundedReader(io.BufferedReader):
    """A file of which no more is asked than is there, for memory is taken before reading."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        """At most the rest of the file."""
        rest = max(self.size - self.tell(), 0)
        return super().read(rest if size is None or size < 0 else min(size, rest))


class _Frame:
    """Called by pydicom before each value on the first level; never stops the reading, but may raise.

    Args:
        stream: where pydicom reads; its position is at the value.
        implicit: whether value representations are left out.
    """

    def __init__(self, stream: _BoundedReader, implicit: bool) -> None:
        self._stream, self._implicit, self._last = stream, implicit, 0

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        """Look at one attribute."""
        if tag <= self._last and {tag >> 16, self._last >> 16} & {*_GROUPS}:
            raise ValueError("attributes out of order")
        if tag < _FIRST_TAG:
            raise ValueError("an attribute that is not of a data set")
        self._last = tag
        vr = _implicit_vr(tag) if self._implicit else vr  # pydicom takes one that is no word as left out
        if vr not in _KNOWN:
            raise ValueError("unknown value representation")
        if length == _UNDEFINED:
            return False
        place = self._stream.tell()
        if length > self._stream.size - place:
            raise ValueError("longer than the file")
        if vr in _TEXT and 0 < length <= _LONGEST_TEXT:
            if _NO_TEXT.search(self._stream.read(length).rstrip(b"\x00 ")):
                raise ValueError("bytes that are no text")
            self._stream.seek(place)
        elif vr == "SQ":
            self._check_items(place, length)
        return False

    def _check_items(self, place: int, length: int) -> None:
        """The items of a sequence fill it; those of undefined length cannot be seen from outside."""
        end = place + length
        position = place
        while position < end:
            self._stream.seek(position)
            head = self._stream.read(8)
            order = "<" if head[:2] == b"\xfe\xff" else ">"
            group, element, size = struct.unpack(f"{order}HHL", head.ljust(8, b"\0"))
            if group << 16 | element != _ITEM:
                raise ValueError("no item where one should be")
            if size == _UNDEFINED:
                break
            position += 8 + size
        else:
            if position != end:
                raise ValueError("items do not fill their sequence")
        self._stream.seek(place)


def _implicit_vr(tag: int) -> str:
    try:
        vr: Any = dictionary_VR(tag)
    except KeyError:  # a private attribute, of which nothing is known
        return "UN"
    return str(vr)[:2]
