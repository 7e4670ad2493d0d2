"""Chest films with six landmarks, in the two forms in which they are handed on.

* The Shenzhen form: ``pngs/NAME.png`` and ``labels/NAME.txt`` with ratios.
* The form with a manifest: ``manifest.csv``, films at any depth and ``landmarks_extremes6_origpx.csv`` in pixels of the
  original films; these landmarks follow from lung masks.

No chest film of either has a pixel spacing, so their errors are in pixels unless the user gives one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from monai_landmark.data.annotations import Annotation, read_csv, read_ratio
from monai_landmark.data.annotations.base import check_annotations
from monai_landmark.data.datalist import Datalist, LeftOut
from monai_landmark.data.datasets.collect import Candidate, Marks, collect, rescale
from monai_landmark.data.datasets.films import Progress, Size, Spacing, bare_name, films_below, relative_name
from monai_landmark.data.datasets.manifest import ManifestRow, read_manifest
from monai_landmark.data.datasets.split import DEFAULT_FRACTIONS, Fractions, split_by_rank
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError

__all__ = ["EXCLUDED", "SPLITS", "prepare_chest6"]

SPLITS = ("papers", "fractions")
"""``papers`` (Shenzhen only): sorted names without :data:`EXCLUDED`, 195 training, 34 validation, the rest test."""
EXCLUDED = frozenset(
    f"CHNCXR_{number}_0" for number in ("0059", "0178", "0228", "0267", "0276", "0285", "0295", "0303", "0310")
)
"""Films that the papers with six chest landmarks leave out (GU2Net, Zhu et al., MICCAI 2021, datasets/chest.py)."""
_TABLE = "landmarks_extremes6_origpx.csv"
_SIDES = {"R": "right_lung", "L": "left_lung"}


def prepare_chest6(
    folder: Path,
    *,
    spacing_mm: Spacing | None = None,
    split: str | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
    duplicates: str = "mark",
    unlabelled: Path | None = None,
    progress: Progress | None = None,
    cache: FilmCache | None = None,
) -> Datalist:
    """Datalist of chest films with six landmarks.

    Args:
        folder: one of the two forms described above.
        spacing_mm: (row, column) spacing of every film, when it is known.
        split: ``papers`` (default of the Shenzhen form) or ``fractions`` (default of the other).
        fractions: which, for the split ``fractions``.
        duplicates: ``mark``, ``drop`` or ``refuse`` films that recur in another section.
        unlabelled: a folder of further films without landmarks.
        progress: shows how far the reading is.
        cache: keeps what is seen of the films.

    Returns:
        The datalist.

    Raises:
        ConfigurationError: neither form, or a split that the form has not.
    """
    shenzhen = (folder / "labels").is_dir()
    if not shenzhen and not (folder / "manifest.csv").is_file():
        expected = f"folders pngs and labels, or manifest.csv with {_TABLE}"
        raise ConfigurationError("not a chest data set that is known", file=folder, expected=expected)
    split = split or ("papers" if shenzhen else "fractions")
    if split == "papers" and not shenzhen:
        raise ConfigurationError(
            "this data set has no published split", field="split", value=split, expected="fractions"
        )
    datalist = Datalist("chest6", "chest6", folder.absolute(), duplicates_policy=duplicates)
    candidates, left_out = (_shenzhen if shenzhen else _with_manifest)(folder)
    datalist.left_out = left_out
    patients = [film.patient for film in candidates]
    sections = split_by_rank(patients, 195, 34) if split == "papers" else fractions.divide(patients)
    films = [
        Candidate(film.path, film.id, film.patient, sections[film.patient], film.marks, spacing_mm)
        for film in candidates
    ]
    datalist.notes = [
        "spacing: given by the user" if spacing_mm else "spacing: none, results are in pixels",
        f"split: {split if split == 'papers' else fractions}",
    ]
    return collect(datalist, films, unlabelled=unlabelled, progress=progress, cache=cache)


_Found = tuple[list[Candidate], list[LeftOut]]


def _shenzhen(folder: Path) -> _Found:
    """Films that have a label file; the numbers in their names count as patients."""
    candidates, left_out = [], []
    for path in films_below(folder / "pngs"):
        name = bare_name(path.name)
        label = folder / "labels" / f"{name}.txt"
        if name in EXCLUDED:
            reason = "on the list of films that the papers leave out"
            left_out.append(LeftOut(relative_name(path, folder), reason, "rule"))
        elif label.is_file():
            candidates.append(Candidate(path, name, name, "", partial(_ratio_marks, label, name)))
        else:
            left_out.append(LeftOut(relative_name(path, folder), "has no label file", "rule"))
    return candidates, left_out


def _ratio_marks(label: Path, name: str, size: Size) -> Marks:
    annotation = read_ratio(label, "chest6", film_sizes={name: size})[0]
    return Marks(annotation.landmarks, annotation.visibility)


def _with_manifest(folder: Path) -> _Found:
    """Films of the manifest; a lung that is cut by the film's border has no true extreme points."""
    manifest = read_manifest(folder / "manifest.csv")
    table = folder / _TABLE
    names = LandmarkSchema.load("chest6").landmarks
    marked = {annotation.film: _renamed(annotation, names, table) for annotation in read_csv(table)}
    paths = {bare_name(path.name): path for path in films_below(folder) if "masks" not in path.parts}
    candidates, left_out = [], []
    for name, row in manifest.items():
        cut = [side for side in ("right", "left") if row.values.get(f"{side}_lung_touches_border") == "1"]
        if name not in paths or name not in marked:
            reason = f"in the manifest, but there is no {'film' if name not in paths else 'annotation'}"
            left_out.append(LeftOut(name, reason))
        elif cut:
            reason = f"the {' and '.join(cut)} lung is cut by the border of the film"
            left_out.append(LeftOut(relative_name(paths[name], folder), reason, "rule"))
        else:
            # The same films, unlabelled, carry this prefix in their own manifest: whose films they are must agree.
            patient = "kermany-" + row.values.get("patient_group", name)
            marks: Callable[[Size], Marks] = partial(_rescaled_marks, marked[name], row, table)
            candidates.append(Candidate(paths[name], name, patient, "", marks))
    return candidates, left_out


def _renamed(annotation: Annotation, names: tuple[str, ...], table: Path) -> Annotation:
    """``R_top`` is ``right_lung_top``; other columns are another set of landmarks."""
    found = tuple("_".join((_SIDES.get(name[:1], name[:1]), name[2:])) for name in annotation.names or ())
    if found != names:
        expected = "R_top, R_bottom, R_lateral, L_top, L_bottom, L_lateral"
        raise AnnotationError("not the six landmarks", file=table, value=annotation.names, expected=expected)
    return Annotation(annotation.film, annotation.landmarks, annotation.visibility, names)


def _rescaled_marks(annotation: Annotation, row: ManifestRow, table: Path, size: Size) -> Marks:
    row.check_size(size, annotation.film)
    check_annotations([annotation], {annotation.film: row.original}, table)
    return Marks(rescale(annotation.landmarks, row.original, size), annotation.visibility)
