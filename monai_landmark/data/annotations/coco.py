"""COCO keypoints: names in ``categories.keypoints``, ``[x, y, v, ...]`` in ``annotations``, sizes in ``images``.

Visibility is COCO's own code: 0 not labeled, 1 labeled but not visible, 2 visible. Coordinates are taken as pixel
indices (center of the top-left pixel = 0, 0), as COCO's keypoints are published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_landmark.data.annotations.base import (
    Annotation,
    FilmSizes,
    SchemaLike,
    check_annotations,
    common_names,
    find_film,
    from_listed,
    landmark_names,
)
from monai_landmark.data.annotations.parsing import (
    MISSING,
    FilePath,
    Point,
    json_entry,
    json_point,
    read_json,
    write_json,
)
from monai_landmark.errors import AnnotationError

__all__ = ["read_coco", "write_coco"]


def read_coco(
    path: FilePath,
    schema: SchemaLike | None = None,
    *,
    film_sizes: FilmSizes | None = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read the one keypoint category of a COCO file; the film is ``images.file_name``.

    Args:
        path: the JSON file.
        schema: gives names and order, and refuses other names; None keeps those of the file.
        film_sizes: film -> (height, width); a file made on films of another size is refused. None trusts the file.
        reader: who annotated, where the file does not say.

    Raises:
        AnnotationError: names the file, the entry and what was expected there.
    """
    content = read_json(path)
    listed, category = _category(content, path)
    images = dict(_image(entry, path, f"images[{at}]") for at, entry in _entries(content, "images", path))
    names = landmark_names(schema)
    found = []
    for at, entry in _entries(content, "annotations", path):
        where = f"annotations[{at}]"
        if json_entry(entry, "category_id", int, file=path, where=where) != category:
            continue
        image_id = json_entry(entry, "image_id", (int, str), file=path, where=where)
        if image_id not in images:
            raise AnnotationError(
                "unknown image", file=path, field=f"{where}.image_id", value=image_id, expected="an id of images"
            )
        rows = _points(json_entry(entry, "keypoints", list, file=path, where=where), path, where)
        own_reader = entry.get("reader") or reader
        found.append(from_listed(images[image_id][0], rows, listed, names, file=path, reader=own_reader))
    own_sizes = dict(images.values())
    for film in {annotation.film for annotation in found} if film_sizes else ():
        size = find_film(film_sizes or {}, film, file=path, what="size")
        if tuple(size) != own_sizes[film]:
            raise AnnotationError(
                "made on a film of another size",
                file=path,
                field=f"film {film}, (height, width)",
                value=own_sizes[film],
                expected=str(tuple(size)),
                action="export the annotations of the original films",
            )
    return check_annotations(found, own_sizes, path)


def write_coco(
    path: FilePath, annotations: Sequence[Annotation], *, film_sizes: FilmSizes, category: str = "film"
) -> Path:
    """Write a COCO file with one category; nothing is lost (the reader goes into an entry of that name).

    Args:
        path: the JSON file.
        annotations: with the same landmark names.
        film_sizes: film -> (height, width), which COCO asks for.
        category: name of the category.

    Raises:
        AnnotationError: nothing to write, annotations without common names, or a film whose size is not given.
    """
    names = common_names(annotations, "COCO")
    films = {film: at for at, film in enumerate(dict.fromkeys(a.film for a in annotations), start=1)}
    sizes = {film: find_film(film_sizes, film, file=path, what="size") for film in films}
    content = {
        "images": [
            {"id": at, "file_name": film, "width": sizes[film][1], "height": sizes[film][0]}
            for film, at in films.items()
        ],
        "categories": [{"id": 1, "name": category, "keypoints": list(names), "skeleton": []}],
        "annotations": [_entry(annotation, at, films) for at, annotation in enumerate(annotations, start=1)],
    }
    return write_json(path, content)


def _entry(annotation: Annotation, at: int, films: dict[str, int]) -> dict[str, Any]:
    """One entry of the list of annotations; the box, which COCO's tools ask for, is that of the landmarks."""
    points = annotation.points()
    there = annotation.landmarks[annotation.annotated]
    left, top = there.min(0).tolist() if len(there) else (0.0, 0.0)
    width, height = (there.max(0) - there.min(0)).tolist() if len(there) else (0.0, 0.0)
    entry = {
        "id": at,
        "image_id": films[annotation.film],
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, width, height],
        "area": width * height,
        "num_keypoints": len(there),
        "keypoints": [value for x, y, seen in points for value in ((x, y, seen) if seen else (0, 0, 0))],
    }
    return entry if annotation.reader is None else {**entry, "reader": annotation.reader}


def _entries(content: Any, key: str, path: FilePath) -> list[tuple[int, Any]]:
    """The numbered entries of a list at the top of the file."""
    return list(enumerate(json_entry(content, key, list, file=path, where="")))


def _category(content: Any, path: FilePath) -> tuple[list[str], int]:
    """Landmark names and id of the only category that has keypoints."""
    categories = [entry for _, entry in _entries(content, "categories", path) if isinstance(entry, dict)]
    with_names = [entry for entry in categories if entry.get("keypoints")]
    if len(with_names) != 1:
        raise AnnotationError(
            "not exactly one keypoint category",
            file=path,
            field="categories",
            value=[entry.get("name") for entry in with_names],
            expected="one category with the names of its keypoints",
            action="keep the category of the landmarks and remove the others",
        )
    names = json_entry(with_names[0], "keypoints", list, file=path, where="categories")
    return [str(name) for name in names], json_entry(with_names[0], "id", int, file=path, where="categories")


def _image(entry: Any, path: FilePath, where: str) -> tuple[int | str, tuple[str, tuple[int, int]]]:
    """Id of an image, its film and that film's (height, width)."""
    size = tuple(json_entry(entry, key, int, file=path, where=where) for key in ("height", "width"))
    film = json_entry(entry, "file_name", str, file=path, where=where)
    return json_entry(entry, "id", (int, str), file=path, where=where), (film, (size[0], size[1]))


def _points(values: list[Any], path: FilePath, where: str) -> list[Point]:
    """``x, y, v`` triples; COCO leaves x and y of what is not labeled without meaning."""
    if len(values) % 3:
        field = f"{where}.keypoints"
        raise AnnotationError(
            "not triples", file=path, field=field, value=len(values), expected="x, y, v for each name"
        )
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    # -1 stands for a code that is none, as json_point would take an absent one for visible
    return [
        MISSING
        if v == 0
        else json_point([x, y], -1 if v is None else v, file=path, field=f"{where}.keypoints[{3 * at}]")
        for at, (x, y, v) in enumerate(triples)
    ]
