"""One's own films: a folder, an annotation file of any format, and a rule that tells the patients apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from monai_landmark.data.datalist import Datalist, LeftOut
from monai_landmark.data.datasets.collect import Candidate, Marks, collect
from monai_landmark.data.datasets.films import (
    Progress,
    Size,
    Spacing,
    bare_name,
    films_below,
    open_films,
    read_table,
    relative_name,
)
from monai_landmark.data.datasets.matching import (
    FilmAnnotations,
    FilmIndex,
    choose_reader,
    match_annotations,
    read_all_annotations,
)
from monai_landmark.data.datasets.split import DEFAULT_FRACTIONS, Fractions
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.data.schema import LandmarkSchema, shipped_schemas
from monai_landmark.errors import AnnotationError, ConfigurationError

__all__ = ["prepare_folder"]


def prepare_folder(
    folder: Path,
    *,
    annotations: Path | None = None,
    annotation_format: str | None = None,
    schema: str | None = None,
    schema_out: Path | None = None,
    reader: str | None = None,
    spacing_mm: Spacing | None = None,
    patient_pattern: str | None = None,
    patients: Path | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
    duplicates: str = "refuse",
    unlabelled: Path | None = None,
    progress: Progress | None = None,
    cache: FilmCache | None = None,
) -> Datalist:
    """Datalist of a folder of films.

    Annotated films are divided by patient; films without annotation are ``unlabelled``, except those of patients who
    are tested on, which are left out.

    Args:
        folder: the films, at any depth, in any format.
        annotations: annotation file, or folder of them; None when no film is annotated.
        annotation_format: its format; None recognizes it.
        schema: shipped landmark schema or path of a YAML; None takes the names from the annotations.
        schema_out: where to write a schema made from the annotations' names.
        reader: whose landmarks are the target, or ``mean``; needed when several annotated.
        spacing_mm: (row, column) spacing of every film, when the user knows better than the files.
        patient_pattern: regular expression found in a film's path; its group ``patient``, else its first group, else
            the whole match is the patient.
        patients: CSV with the columns ``film`` and ``patient``, in place of a pattern.
        fractions: how the annotated films' patients are divided.
        duplicates: ``mark``, ``drop`` or ``refuse`` films that recur in another section.
        unlabelled: a folder of further films without landmarks.
        progress: shows how far the reading is.
        cache: keeps what is seen of the films.

    Returns:
        The datalist.

    Raises:
        ConfigurationError: choices that contradict each other or are missing.
        AnnotationError: an annotation file that does not say what it must, or copies across sections under ``refuse``.
    """
    paths = films_below(folder)
    cache = cache or FilmCache()
    opened, left_out = open_films(paths, folder, spacing_mm, progress, cache=cache)
    index = FilmIndex(paths, folder)
    patient_of, rule = _patient_rule(folder, index, patient_pattern, patients)
    given = LandmarkSchema.load(schema) if schema else None
    found = FilmAnnotations()
    if annotations is not None:
        read, broken = read_all_annotations(annotations, annotation_format, given, opened)
        found = match_annotations(read, index, opened, annotations)
        left_out += broken + found.left_out
    owners = {path: patient_of(path) for path in opened}
    left_out += [
        LeftOut(relative_name(path, folder), f"no patient: {rule}") for path, owner in owners.items() if not owner
    ]
    known = {path: owner for path, owner in owners.items() if owner}
    annotated = [path for path in found.by_film if path in known]
    sections = fractions.divide(known[path] for path in annotated)
    target = choose_reader(found.readers(), reader) if annotated else None
    datalist = Datalist(
        folder.absolute().name,
        _schema_name(schema, found.names, schema_out, annotations) if annotated else schema,
        folder.absolute(),
        reader=target or None,
        duplicates_policy=duplicates,
        left_out=left_out,
        notes=[
            "spacing: given by the user" if spacing_mm else "spacing: what each film says",
            f"patients: {rule}",
            f"split: {fractions}",
        ],
    )
    if annotated and schema is None:
        datalist.notes.append("left and right: no pairs are known; name them in the schema if the landmarks have sides")
    ids = _ids(list(known), folder)
    candidates = []
    for path, owner in known.items():
        marks: Callable[[Size], Marks] | None = None
        if target is not None and annotations is not None and path in found.by_film:
            marks = partial(_marks, found, path, target, annotations)
        candidates.append(Candidate(path, ids[path], owner, sections[owner] if marks else "unlabelled", marks))
    return collect(datalist, candidates, unlabelled=unlabelled, opened=opened, cache=cache)


def _marks(found: FilmAnnotations, path: Path, target: str, file: Path, size: Size) -> Marks:
    return found.marks(path, target, size, file)


def _ids(paths: list[Path], folder: Path) -> dict[Path, str]:
    """Path in the folder without suffix; with it where two films differ in nothing else."""
    names = {path: relative_name(path, folder) for path in paths}
    times = Counter(bare_name(name) for name in names.values())
    return {path: name if times[bare_name(name)] > 1 else bare_name(name) for path, name in names.items()}


_PatientRule = tuple[Callable[[Path], str | None], str]


def _patient_rule(folder: Path, films: FilmIndex, pattern: str | None, table: Path | None) -> _PatientRule:
    """Film -> patient (None when the rule does not tell), and the rule in words."""
    if pattern is not None and table is not None:
        raise ConfigurationError("two rules for the patients", field="patient pattern, patients", value=pattern)
    if table is not None:
        rows = read_table(table, ("film", "patient"))
        owners = {films.find(row["film"]): row["patient"].strip() for row in rows}
        return owners.get, f"column patient of {table.name}"
    if pattern is None:
        return lambda path: bare_name(relative_name(path, folder)), "no rule given, every film counts as its own"
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(
            f"not a regular expression ({error})", field="patient pattern", value=pattern
        ) from error

    def matched(path: Path) -> str | None:
        """Patient in a film's path; None where the pattern is not found."""
        match = expression.search(relative_name(path, folder))
        if match is None:
            return None
        return match.group("patient" if "patient" in expression.groupindex else min(expression.groups, 1))

    return matched, f"pattern {pattern!r} in the film's path"


def _schema_name(given: str | None, names: tuple[str, ...] | None, out: Path | None, annotations: Path | None) -> str:
    """The schema the user named, a shipped one with these names, or one beside the datalist that holds just these."""
    if given is not None:
        return str(Path(given).absolute()) if Path(given).is_file() else given
    for name in shipped_schemas():
        if LandmarkSchema.load(name).landmarks == names:
            return name
    if names is None or out is None:
        raise AnnotationError(
            "the annotations do not name their landmarks",
            file=annotations,
            expected=f"a schema: one of {', '.join(shipped_schemas())}, or a YAML",
            action="give `--schema`",
        )
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        LandmarkSchema(out.name.split(".")[0], "Landmarks named by the annotations", names).to_yaml(out)
    elif LandmarkSchema.load(out).landmarks != names:
        raise AnnotationError(
            "a schema of other landmarks is in the way",
            file=out,
            value=names,
            expected=f"{LandmarkSchema.load(out).landmarks}",
            action="give `--schema`, or another place for the datalist",
        )
    return str(out.absolute())
