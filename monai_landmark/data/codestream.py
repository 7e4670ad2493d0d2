"""Size and precision that a compressed image states about itself, read before anything is decoded."""

from __future__ import annotations

import struct

__all__ = ["codestream_size"]

_JPEG_START = b"\xff\xd8"
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "
# Markers with a frame header: SOF0-SOF15 without DHT, JPG, DAC; and SOF55 of JPEG-LS.
_FRAME_HEADERS = ({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns in the header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    A DICOM header and the codestream inside can disagree; a decoder believes the codestream and would allocate what
    that says.

    Args:
        data: the compressed frame.

    Returns:
        ``(rows, columns)``, or None when no frame header is found.
    """
    if data.startswith(_JP2_START):
        data = data[max(data.find(_J2K_START), 0) :]
    if data.startswith(_J2K_START) and len(data) >= 24:
        # SIZ: length, capabilities, then the reference grid and the image's offset in it (ISO 15444-1, A.5.1)
        width, height, left, top = struct.unpack(">4I", data[8:24])
        return height - top, width - left
    return _jpeg_size(data) if data.startswith(_JPEG_START) else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the marker segments up to the first frame header (ISO 10918-1, B.2.2)."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _FRAME_HEADERS:
            rows, columns = struct.unpack(">2H", data[position + 5 : position + 9])
            return rows, columns
        else:
            position += 2 + int(struct.unpack(">H", data[position + 2 : position + 4])[0])
    return None
