"""Landmarks carried from films onto what is drawn from them, or comes back of them, on a network's grid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from monai_landmark.data.datalist import Datalist, Item, landmarks_json, load_datalist, save_datalist
from monai_landmark.data.spacing import check_spacing
from monai_landmark.errors import DataError
from monai_landmark.files import file_sha256
from monai_landmark.generation.embedding import film_preprocessing
from monai_landmark.transforms import MillimetersToGridd

__all__ = ["carry_landmarks", "item_on_grid"]


def item_on_grid(film: Item, shown: Mapping[Any, Any], path: Path) -> Item:
    """The datalist's item of a picture that lies on the same grid as a film.

    Args:
        film: item of the film, with ``id``, ``patient``, ``spacing`` and ``visibility``.
        shown: the same after its transforms: ``image`` with the grid's affine, ``landmarks`` in pixels of the grid.
        path: the picture, ``images/x.png`` beside the datalist to be written, say.

    Returns:
        Its item, ``image`` being the last folder and the name. A landmark that lies outside the grid is null, and its
        visibility 0.
    """
    size, points = list(shown["image"].shape[-2:]), np.asarray(shown["landmarks"], dtype=float)
    inside = np.all((points >= -0.5) & (points <= np.array(size[::-1]) - 0.5), axis=-1, keepdims=True)  # not if NaN
    spacing = _spacing(shown["image"]) if film.get("spacing") is not None else None
    return {
        "image": f"{path.parent.name}/{path.name}",
        "id": film["id"],
        "patient": film.get("patient"),
        "size": size,
        "spacing": spacing,
        "spacing_source": "none" if spacing is None else "user",
        "sha256": file_sha256(path),
        "landmarks": landmarks_json(np.where(inside, points, np.nan)),
        "visibility": [code if seen else 0 for code, seen in zip(film["visibility"], inside[:, 0], strict=True)],
    }


def carry_landmarks(datalist: str | PathLike[str], folder: str | PathLike[str]) -> Path | None:
    """Give drawn films the landmarks of the films that they started from, for ``train --drawn_films``.

    Only the strategy ``start`` keeps the anatomy where it was, and only with a small strength: look at the films.

    Args:
        datalist: of the real films.
        folder: that ``generate`` wrote; receives ``datalist.json``, which names no film and no patient: ``patient`` and
            ``source`` are the hash of the real film's file.

    Returns:
        The file; None, and nothing is written, for other strategies and where no film that was started from is
        annotated.
    """
    folder, known = Path(folder), Datalist.load(datalist)
    (folder / "datalist.json").unlink(missing_ok=True)  # of films that stood here before
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest["strategy"] != "start":
        return None
    listed = [film for section in known.sections for film in load_datalist(datalist, section)]
    annotated = {film["sha256"]: film for film in listed if film.get("landmarks")}
    prepare = film_preprocessing(manifest["spatial_size"], manifest["cover"])
    on_grid = MillimetersToGridd("landmarks", "image")
    shown = {source: on_grid(prepare(annotated[source])) for source in _sources(manifest) & annotated.keys()}
    items = []
    for drawn in manifest["films"]:
        (source,) = drawn["sources"]
        if source in shown:
            path = folder / drawn["image"]
            film = {**annotated[source], "id": path.stem, "patient": source}
            items.append({**item_on_grid(film, shown[source], path), "source": source})
    if not items:
        return None
    notes = [f"drawn from films, strength {manifest['strength']}; landmarks are those of the films"]
    content = Datalist(known.name, known.schema, folder, {"training": items}, known.reader, notes=notes)
    save_datalist(content, folder / "datalist.json")
    return folder / "datalist.json"


def _sources(manifest: Mapping[str, Any]) -> set[str]:
    return {source for drawn in manifest["films"] for source in drawn["sources"]}


def _spacing(film: MetaTensor) -> list[float] | None:
    """Of a film's grid; None where its pixels are too coarse to be those of a film, and errors are in pixels then."""
    spacing = [round(float(each), 6) for each in film.affine[:2, :2].norm(dim=0)]
    try:
        check_spacing(spacing, field="spacing")
    except DataError:
        return None
    return spacing
