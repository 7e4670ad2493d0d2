"""Films that occur twice: identical ones by content hash, near-identical ones by perceptual hash and correlation.

Two films are near-identical when they come from one exposure: saved again, windowed or brightened differently, resized,
cropped or shifted by a little. Both are brought to 128 x 128 and to *structure* (local mean off, local contrast
divided out), so that what is compared is edges and not brightness. Candidates are pairs whose 255-bit hashes (signs of
the low cosine frequencies of the structure, after Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010) differ in few bits; a candidate is confirmed by its normalized cross-correlation, maximal over small
shifts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, irfft2, rfft2
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

__all__ = ["DuplicatePair", "Fingerprint", "find_duplicates", "fingerprint"]

FloatArray = NDArray[np.float32]

SIDE = 128
"""Rows and columns of the structure."""
MAX_SHIFT = 6
"""Largest shift tried, in pixels of the structure: 4.7 % of the film."""
MAX_DIFFERENT_BITS = 64
"""Candidates. Saved again a copy differs in at most 12 bits, with another tone curve in 44, shifted by 1 % in 52; two
lateral cephalograms of two people differ in 94 (median), 1 in 30 of such pairs in 64 or less."""
MIN_SIMILARITY = 0.85
"""Confirmed. Saved again, noisy or with another tone curve a copy reaches 0.92-1.00, shifted by 1 % 0.89; of 44,850
pairs of lateral cephalograms no other one reaches 0.72."""
_BATCH = 256


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a film in order to recognize it.

    Attributes:
        sha256: hash of the decoded pixels and their shape.
        bits: ``(255,)`` bool, the perceptual hash.
        structure: ``(128, 128)`` float16 of zero mean and unit norm; all zero for a film without any structure.
    """

    sha256: str
    bits: NDArray[np.bool_]
    structure: NDArray[np.float16]


@dataclass(frozen=True)
class DuplicatePair:
    """Two films that show one exposure.

    Attributes:
        first: id of the film that comes first.
        second: id of the other one.
        similarity: normalized cross-correlation of the structures, at most 1.
        identical: every pixel is the same.
    """

    first: str
    second: str
    similarity: float
    identical: bool


def fingerprint(pixels: FloatArray) -> Fingerprint:
    """Content hash, perceptual hash and structure of a film.

    Args:
        pixels: ``(H, W)`` upright film.

    Returns:
        The film's fingerprint, 34 kB whatever the size of the film.
    """
    content = hashlib.sha256(str(pixels.shape).encode())
    content.update(np.ascontiguousarray(pixels, dtype=np.float32).data)
    structure = _structure(_shrink(pixels))
    low = dctn(structure, norm="ortho")[:16, :16].ravel()[1:]
    unit = structure / max(float(np.linalg.norm(structure)), 1e-12)
    return Fingerprint(content.hexdigest(), low > np.median(low), unit.astype(np.float16))


def find_duplicates(prints: Mapping[str, Fingerprint]) -> list[DuplicatePair]:
    """Every pair of identical or near-identical films.

    The number of comparisons grows with the square of the number of films, but only as one matrix product of hashes;
    correlations are computed for the candidates alone.

    Args:
        prints: fingerprints by film id.

    Returns:
        Pairs in the order of ``prints``, the first film of a pair before the second.
    """
    names, films = list(prints), list(prints.values())
    if len(films) < 2:
        return []
    found = []
    for rows, columns in _candidates(np.stack([film.bits for film in films])):
        similarity = _similarity([films[i] for i in rows], [films[j] for j in columns])
        for i, j, value in zip(rows, columns, similarity, strict=True):
            identical = films[i].sha256 == films[j].sha256
            if identical or value >= MIN_SIMILARITY:
                found.append((int(i), int(j), 1.0 if identical else float(min(value, 1.0)), identical))
    return [DuplicatePair(names[i], names[j], round(value, 4), same) for i, j, value, same in sorted(found)]


def _shrink(pixels: FloatArray) -> FloatArray:
    """Mean over the (fractional) cells of a 128 x 128 grid, whatever the film's size."""

    def cells(length: int) -> csr_array:
        """``(128, length)`` share of each pixel in each cell of one axis."""
        edges, starts = np.linspace(0, length, SIDE + 1), np.arange(length)
        overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
        return csr_array(np.maximum(overlap, 0) * SIDE / length, dtype=np.float32)

    height, width = pixels.shape
    return np.asarray((cells(width) @ (cells(height) @ pixels).T).T, dtype=np.float32)


def _structure(small: FloatArray) -> FloatArray:
    """Local mean off, local contrast divided out; the floor of 0.1 keeps noise in flat parts from growing."""
    scaled = (small - small.mean()) / max(float(small.std()), 1e-6)
    detail = scaled - gaussian_filter(scaled, 4)
    local = detail / np.sqrt(gaussian_filter(detail**2, 4) + 0.1**2)
    return np.asarray(local - local.mean(), dtype=np.float32)


def _candidates(bits: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Index pairs i < j whose hashes differ in few bits, some hundred at a time."""
    signs = np.where(bits, 1, -1).astype(np.float32)
    # Of n bits, d differ: the product of the signs is n - 2 d.
    least = bits.shape[1] - 2 * MAX_DIFFERENT_BITS
    for start in range(0, len(bits), _BATCH):
        products = signs[start : start + _BATCH] @ signs[start:].T
        rows, columns = np.nonzero(np.triu(products >= least, k=1))
        for first in range(0, len(rows), _BATCH):
            chosen = slice(first, first + _BATCH)
            yield rows[chosen] + start, columns[chosen] + start


def _similarity(first: list[Fingerprint], second: list[Fingerprint]) -> FloatArray:
    """``(N,)`` normalized cross-correlations, maximal over shifts of up to ``MAX_SHIFT`` pixels each way."""
    spectra = [rfft2(np.stack([film.structure for film in films]).astype(np.float32)) for films in (first, second)]
    correlation = irfft2(np.conj(spectra[0]) * spectra[1], s=(SIDE, SIDE))
    near = np.r_[0 : MAX_SHIFT + 1, SIDE - MAX_SHIFT : SIDE]
    return np.asarray(correlation[:, near][:, :, near].max(axis=(1, 2)), dtype=np.float32)
