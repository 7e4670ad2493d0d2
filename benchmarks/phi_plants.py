"""Films as a clinic has them, with 50 planted names, dates, numbers and UIDs, and the search for these in any file."""

from __future__ import annotations

import base64
import gzip
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset, FileDataset, FileMetaDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.synthetic import synthesize_film

__all__ = ["FOLDERS", "NAMED", "TAGGED", "found", "write_clinic", "write_film"]

_UID = "1.2.826.0.1.3680043.8.498"
_PEOPLE = [f"Plantedtag{part}^Jane{part}" for part in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
_DATES = [f"19{year}0{month}1{month}" for year, month in zip(range(31, 39), range(1, 9), strict=True)]
_NUMBERS = [f"ACC{70301 + 17 * number}" for number in range(8)]
_UIDS = [f"{_UID}.{10**12 + 7919 * number}" for number in range(8)]
_PLACES = ["Saint Planted Hospital", "PLANTEDWARD-7", "Plantedtag Street 12", "planted maker note"]
#: Stand in the films' attributes: nobody is ever told them.
TAGGED = (*_PEOPLE, *_DATES, *_NUMBERS, *_UIDS, *_PLACES)
#: A folder for each patient and his studies, as a PACS exports them.
FOLDERS = (
    *("PLANTEDFOLDER^ANNE_19210121", "planted folder bob", "Plantedmüller-Carl", "PID6600117"),
    *(
        "PLANTEDFOLDER_DORA/20010203",
        f"PLANTEDFOLDER_EMIL/{_UID}.5550001",
        "plantedfolder'finn",
        "6600233_plantedgrete",
    ),
)
_FILES = [f"IM_{_UID}.5550{number}02" for number in range(2)] + ["PLANTEDFILE_HANS_19281231", "planted file ida"]
#: Stand in the names of files and folders: the people of the clinic are told them, and nobody else.
NAMED = (
    *("PLANTEDFOLDER^ANNE", "19210121", "planted folder bob", "Plantedmüller-Carl", "PID6600117", "PLANTEDFOLDER_DORA"),
    *(
        "20010203",
        f"{_UID}.5550001",
        "plantedfolder'finn",
        "6600233_plantedgrete",
        f"{_UID}.5550002",
        f"{_UID}.5550102",
    ),
    *("PLANTEDFILE_HANS", "planted file ida"),
)
_SIZE = (200, 216)
_CODES = ("utf-8", "utf-16-le", "utf-16-be")
_MOST_OF_LARGE = 4 << 20  # larger files are weights; encoded words are looked for in smaller ones


def write_clinic(folder: Path) -> Path:
    """Nine DICOM films and a PNG, of which all but two are annotated.

    Args:
        folder: made here.

    Returns:
        A CSV with the landmarks.
    """
    schema, rows = LandmarkSchema.load("synthetic").landmarks, []
    for number in range(10):
        film = synthesize_film(number, _SIZE)
        place = folder / FOLDERS[number % len(FOLDERS)] / f"{_FILES[number % 4]}_{number}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if number == 9:
            _write_png(film.pixels, place.with_name(f"{place.name}.png"))
            continue
        path = write_film(place.with_name(f"{place.name}.dcm"), number)
        if number != 8:
            points = ["" if np.isnan(value) else f"{value:.3f}" for value in film.landmarks_px.ravel()]
            rows.append(",".join([f'"{path.relative_to(folder).as_posix()}"', *points]))
    header = ",".join(["film", *(f"{name}_{axis}" for name in schema for axis in "xy")])
    table = folder / "points.csv"
    table.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return table


def write_film(path: Path, number: int) -> Path:
    """A film of which every attribute that may name somebody does; also a private one, and one in a sequence.

    Args:
        path: of the film.
        number: which film.

    Returns:
        The path.
    """
    invented = synthesize_film(number, _SIZE)
    pixels, spacing_mm = invented.pixels, invented.spacing_mm
    n, m = number % 8, (number + 3) % 8
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = f"{_UIDS[n]}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset(None, {}, file_meta=meta, preamble=_PEOPLE[n].encode().ljust(128, b"\0"))
    film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    film.StudyInstanceUID, film.SeriesInstanceUID, film.FrameOfReferenceUID = _UIDS[m], _UIDS[n], f"{_UIDS[m]}.3"
    film.PatientName, film.ReferringPhysicianName, film.OperatorsName = _PEOPLE[n], _PEOPLE[m], _PEOPLE[(n + 1) % 8]
    film.PatientBirthDate = film.StudyDate = _DATES[n]
    film.ContentDate = film.AcquisitionDate = _DATES[m]
    film.PatientID, film.AccessionNumber, film.StudyID = _NUMBERS[n], _NUMBERS[m], _NUMBERS[n]
    film.InstitutionName, film.StationName, film.InstitutionAddress = _PLACES[0], _PLACES[1], _PLACES[2]
    film.StudyDescription, film.ImageComments, film.BodyPartExamined = _PEOPLE[n], _PEOPLE[m], "SKULL"
    request = Dataset()
    request.RequestedProcedureID, request.RequestingPhysician = _NUMBERS[m], _PEOPLE[m]
    film.RequestAttributesSequence = [request]
    film.private_block(0x0029, _PLACES[3], create=True).add_new(1, "LO", _PEOPLE[n])
    film.Modality, film.PhotometricInterpretation = "DX", "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape
    film.SamplesPerPixel, film.PixelRepresentation, film.BitsAllocated, film.BitsStored = 1, 0, 16, 16
    film.HighBit, film.PixelSpacing, film.PixelSpacingCalibrationType = 15, list(spacing_mm), "FIDUCIAL"
    film.PixelData = pixels.astype("<u2").tobytes()
    film["PixelData"].VR = "OW"
    film.save_as(path, enforce_file_format=True)
    return path


def _write_png(pixels: np.ndarray, path: Path) -> None:
    notes = PngInfo()
    notes.add_text("Description", _PEOPLE[0])
    notes.add_text("Author", _PLACES[0], zip=True)
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(path, pnginfo=notes)


# ---- the search ----------------------------------------------------------------------------------------------------
def found(words: tuple[str, ...], name: str, content: bytes) -> list[str]:
    """Planted words in a file or in its name, whole or in part, plain or encoded.

    Args:
        words: that were planted.
        name: of the file.
        content: of it; archives, pictures, DICOM objects and embedded files are opened.

    Returns:
        The words.
    """
    hay = list(_opened(name.encode() + b"\0" + content, content))
    missing = set(words)
    for each in hay:
        missing = _missing(missing, each)
    return [word for word in words if word not in missing]


def _opened(whole: bytes, content: bytes) -> Iterator[bytes]:
    """Bytes, and those that are packed in them."""
    inner: list[tuple[bytes, bytes]] = []
    if content[:4] == b"PK\x03\x04":
        whole = whole[: len(whole) - len(content)] + content[-65536:]  # its names; the rest comes member by member
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inner = [(each.encode(), archive.read(each)) for each in archive.namelist()]
    elif content[:2] == b"\x1f\x8b":
        inner = [(b"", gzip.decompress(content))]
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        yield repr(Image.open(io.BytesIO(content)).info).encode()
    elif content[128:132] == b"DICM":
        try:
            yield str(dcmread(io.BytesIO(content))).encode()
        except InvalidDicomError:
            pass
    yield whole
    for name, packed in inner:
        yield from _opened(name + b"\0" + packed, packed)
    for packed in re.findall(rb"base64,([A-Za-z0-9+/=]{100,})", content[:_MOST_OF_LARGE]):
        decoded = base64.b64decode(packed)
        yield from _opened(decoded, decoded)


def _missing(words: Iterable[str], hay: bytes) -> set[str]:
    """Words that are not there; most can be told by a stem, which many words have in common."""
    low, small = hay.lower(), len(hay) <= _MOST_OF_LARGE
    known: dict[bytes, bool] = {}

    def seen(forms: Iterable[bytes], where: bytes = low) -> bool:
        """Whether one of some short forms is there."""
        for form in forms:
            if form not in known:
                known[form] = form in where
            if known[form]:
                return True
        return False

    def there(word: str) -> bool:
        """Whether a word is."""
        stem = _stem(word)
        if seen(stem.lower().encode(code) for code in _CODES):
            if any(each in low for each in _plain(word)) or (small and any(each in low for each in _escaped(word))):
                return True
        if any(re.search(rb"(?<![\d.])" + each + rb"(?!\d)", low) for each in _dates(word) if each in low):
            return True
        if not small:
            return False
        if seen([stem.encode().hex().encode()]) and any(each in low for each in _escaped(word)):
            return True
        short = _base64(stem, 5)
        return seen(short, hay) and any(each in hay for part in _parts(word) for each in _base64(part))

    return {word for word in words if not there(word)}


def _stem(word: str) -> str:
    """What a word has in common with others; a date or a number has nothing."""
    found = re.search("planted|3680043.8.498|ACC70", word, re.IGNORECASE)
    return word if found is None else found[0]


@cache
def _plain(word: str) -> frozenset[bytes]:
    """Digits are looked for as dates."""
    return frozenset(part.lower().encode(code) for part in _parts(word) for code in _CODES if not part.isdigit())


@cache
def _dates(word: str) -> frozenset[bytes]:
    """Digits of a measured number are no date; those in a wider code are rare enough."""
    if not word.isdigit():
        return frozenset()
    return frozenset(part.encode() for part in _parts(word)) | {word.encode(code) for code in _CODES[1:]}


@cache
def _escaped(word: str) -> frozenset[bytes]:
    forms = {
        form.lower()
        for part in _parts(word)
        for form in (part.encode("unicode_escape"), quote(part, safe="").encode(), part.encode().hex().encode())
    }
    return frozenset(form for form in forms if not form.isdigit() or len(form) > 8)


def _parts(word: str) -> set[str]:
    """The word, the parts of a name, and a date as people write it."""
    parts = {
        word,
        *(part for part in re.split(r"[\^ ]", word) if "planted" in part.lower() and part.lower() != "planted"),
    }
    if re.fullmatch(r"\d{8}", word):
        year, month, day = word[:4], word[4:6], word[6:]
        parts |= {f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{month}/{day}/{year}"}
    return parts


@cache
def _base64(part: str, fewest: int = 8) -> frozenset[bytes]:
    """As it stands in the base64 of a longer text, wherever it begins in it."""
    raw = part.encode()
    found = (base64.b64encode(bytes(shift) + raw)[-(-shift * 8 // 6) :].rstrip(b"=")[:-1] for shift in range(3))
    return frozenset(each for each in found if len(each) >= fewest)  # a shorter one could be chance
