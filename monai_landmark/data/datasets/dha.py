"""Digital Hand Atlas: radiographs of left hands, 37 landmarks, annotated by Payer et al. (MICCAI 2016)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from monai_landmark.data.annotations import Annotation, read_dha
from monai_landmark.data.annotations.base import check_annotations
from monai_landmark.data.datalist import Datalist
from monai_landmark.data.datasets.collect import Candidate, Marks, collect, rescale
from monai_landmark.data.datasets.films import Progress, Size, Spacing, bare_name, films_below, only_one
from monai_landmark.data.datasets.manifest import ManifestRow, read_manifest
from monai_landmark.data.datasets.split import DEFAULT_FRACTIONS, Fractions, split_by_rank
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.data.spacing import check_spacing
from monai_landmark.errors import AnnotationError, ConfigurationError

__all__ = ["SPACING_RULES", "SPLITS", "prepare_dha"]

SPLITS = ("papers", "fractions")
"""``papers``: sorted names, 550 training, 59 validation, the rest test (GU2Net, Zhu et al., MICCAI 2021)."""
SPACING_RULES = ("wrist50", "header")
_WRIST_MM = 50.0
_TABLES = ("all.csv", "all_910_annotations.csv")


def prepare_dha(
    folder: Path,
    *,
    spacing_rule: str | None = None,
    spacing_mm: Spacing | None = None,
    annotations: Path | None = None,
    split: str = "papers",
    fractions: Fractions = DEFAULT_FRACTIONS,
    duplicates: str = "mark",
    unlabelled: Path | None = None,
    progress: Progress | None = None,
    cache: FilmCache | None = None,
) -> Datalist:
    """Datalist of the Digital Hand Atlas, in original films or in resized ones with a ``manifest.csv``.

    The spacing stored in the films' headers and the convention of the papers differ by 3-18 %, so one must be chosen.

    Args:
        folder: holds films named by their id and ``all.csv``, at any depth.
        spacing_rule: ``wrist50``: 50 mm between the first and the fifth landmark, the papers' convention;
            ``header``: what the film (or its manifest) says.
        spacing_mm: (row, column) spacing of every film, in place of a rule.
        annotations: the table, when it is not called ``all.csv``.
        split: ``papers`` or ``fractions``.
        fractions: which, for the split ``fractions``.
        duplicates: ``mark``, ``drop`` or ``refuse`` films that recur in another section.
        unlabelled: a folder of further films without landmarks.
        progress: shows how far the reading is.
        cache: keeps what is seen of the films.

    Returns:
        The datalist; films without an annotation are in ``unlabelled``.

    Raises:
        ConfigurationError: no spacing rule, or no annotation table.
    """
    if (spacing_rule is None) == (spacing_mm is None):
        raise ConfigurationError(
            "the spacing of the hand films has to be chosen",
            field="spacing rule",
            value=spacing_rule,
            expected="one of: wrist50 (50 mm between landmarks 1 and 5), header (what the file says), or a spacing",
            action="give `--spacing-rule wrist50`, `--spacing-rule header` or `--spacing ROW COL`",
        )
    table = annotations or _find_table(folder)
    marked = {annotation.film: annotation for annotation in read_dha(table)}
    manifest = read_manifest(folder / "manifest.csv") if (folder / "manifest.csv").is_file() else {}
    films = {path: bare_name(path.name) for path in films_below(folder)}
    present = [film for film in films.values() if film in marked]
    sections = split_by_rank(marked, 550, 59) if split == "papers" else fractions.divide(present)
    candidates = []
    for path, name in films.items():
        marks = partial(_marks, marked[name], manifest.get(name), table, spacing_rule) if name in marked else None
        section = sections.get(name, "unlabelled")
        candidates.append(Candidate(path, name, name, section, marks, spacing_mm))
    datalist = Datalist("dha", "dha37", folder.absolute(), duplicates_policy=duplicates)
    rule = f"rule {spacing_rule}" if spacing_rule else "given by the user"
    datalist.notes = [
        f"spacing: {rule}" + (" (50 mm between landmarks 1 and 5 of each film)" if spacing_rule == "wrist50" else ""),
        f"split: {split if split == 'papers' else fractions}; every film counts as its own patient",
    ]
    return collect(datalist, candidates, unlabelled=unlabelled, progress=progress, cache=cache)


def _find_table(folder: Path) -> Path:
    found = (path for name in _TABLES for path in folder.rglob(name))
    expected = f"one file called {' or '.join(_TABLES)}"
    return only_one(found, folder, "annotation tables", expected=expected, action="name it with `--annotations FILE`")


def _marks(annotation: Annotation, row: ManifestRow | None, table: Path, rule: str | None, size: Size) -> Marks:
    """Landmarks in pixels of the stored film, and the spacing that the rule gives."""
    original = size if row is None else row.original
    if row is not None:
        row.check_size(size, annotation.film)
    check_annotations([annotation], {annotation.film: original}, table)
    spacing, source = None, "user"
    if rule == "wrist50":
        spacing = _stored_spacing(_wrist_mm(annotation, table), original, size)
    elif rule == "header" and row is not None and row.values.get("orig_mm_per_px_mha_header"):
        field = "orig_mm_per_px_mha_header"
        header = [row.values[field]] * 2  # the headers of these films state one number for both axes
        spacing = _stored_spacing(check_spacing(header, file=annotation.film, field=field)[0], original, size)
        source = "uncalibrated"
    return Marks(rescale(annotation.landmarks, original, size), annotation.visibility, {}, spacing, source)


def _wrist_mm(annotation: Annotation, table: Path) -> float:
    """Millimeters per original pixel, isotropic by the convention."""
    width_px = float(np.hypot(*(annotation.landmarks[4] - annotation.landmarks[0])))
    if not width_px > 0:
        raise AnnotationError(
            "no wrist width, so no spacing", file=table, field=f"film {annotation.film}", expected="landmarks 1 and 5"
        )
    return check_spacing([_WRIST_MM / width_px] * 2, file=annotation.film, field="50 mm / wrist width in pixels")[0]


def _stored_spacing(mm: float, original: Size, stored: Size) -> Spacing:
    """Spacing of the stored film out of that of the original, whose pixels are square."""
    return mm * original[0] / stored[0], mm * original[1] / stored[1]
