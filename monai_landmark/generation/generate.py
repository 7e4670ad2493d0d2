"""Draw films and write them, with what each was drawn from."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_landmark.engines.precision import PrecisionInferer
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256, write_text
from monai_landmark.generation.dicom import write_synthetic_dicom
from monai_landmark.generation.embedding import Item, embedded_films, film_preprocessing
from monai_landmark.generation.model import Generator
from monai_landmark.generation.sampling import draw_films
from monai_landmark.generation.strategies import Plan, plan_films
from monai_landmark.manifest import write_manifest
from monai_landmark.pretraining.samples import contact_sheet, write_picture

__all__ = ["FilmGeneration", "classes_of", "film_seed"]

_LOGGER = logging.getLogger(__name__)
_FORMATS = ("png", "dicom")
_SHEET = 64  # films in the contact sheet
_COLUMNS = 8


def film_seed(seed: int, number: int) -> int:
    """Seed of the noise that a film is drawn from.

    Args:
        seed: of the run.
        number: of the film.

    Returns:
        What ``torch.Generator.manual_seed`` takes; the manifest states it.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class FilmGeneration:
    """Films drawn by one of the strategies, as files.

    Args:
        generator: the trained model.
        films: real films that are drawn from, items with ``image`` and ``id``. Give those that the model was trained
            on: a film drawn from one of the evaluation would carry into training what that one shows.
        output_dir: receives ``films/synthetic_<number>.png`` or ``.dcm``, ``contact_sheet.png``, ``manifest.json`` and
            ``run.json``.
        count: how many.
        first: number of the first one; several runs may share the work, for a film depends on its number alone.
        strategy: see :mod:`monai_landmark.generation.strategies`.
        guidance: see :func:`~monai_landmark.generation.sampling.draw_films`.
        steps: likewise.
        strength: of ``start``, likewise.
        neighbors: of ``neighborhood``.
        class_field: field of the films, e.g. ``class``, within which ``interpolate`` and ``neighborhood`` stay.
        class_table: CSV with the columns ``id`` and ``class_field``, where the films themselves do not have the field.
        file_format: ``png`` or ``dicom``.
        name_sources: whether the manifest names the real films by their ids too; their files' SHA-256 it always states.
        embeddings: see :func:`~monai_landmark.generation.embedding.embedded_films`.
        seed: of the films.
        batch_size: films drawn at a time.
        precision: ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        ConfigurationError: if a choice is unknown, or films lack the class.
    """

    def __init__(
        self,
        generator: Generator,
        films: Sequence[Item],
        output_dir: str | PathLike[str],
        count: int = 64,
        first: int = 0,
        strategy: str = "films",
        guidance: float = 2.0,
        steps: int = 50,
        strength: float = 0.6,
        neighbors: int = 5,
        class_field: str | None = None,
        class_table: str | PathLike[str] | None = None,
        file_format: str = "png",
        name_sources: bool = False,
        embeddings: str | PathLike[str] | None = None,
        seed: int = 0,
        batch_size: int = 16,
        precision: str = "auto",
    ) -> None:
        if file_format not in _FORMATS:
            expected = " | ".join(_FORMATS)
            raise ConfigurationError("unknown format", field="file_format", value=file_format, expected=expected)
        self.generator, self.films, self.output_dir = generator, list(films), Path(output_dir)
        self.count, self.first, self.strategy = count, first, strategy
        self.guidance, self.steps, self.strength, self.neighbors = guidance, steps, strength, neighbors
        self.classes = None if class_field is None else classes_of(self.films, class_field, class_table)
        self.file_format, self.name_sources, self.embeddings = file_format, name_sources, embeddings
        self.seed, self.batch_size = seed, batch_size
        self.inferer = PrecisionInferer(dtype=precision)

    def run(self) -> dict[str, Any]:
        """Draw and write all films.

        Returns:
            What the manifest says.
        """
        model = self.generator
        films = embedded_films(self.films, model.embedder, self.embeddings, model.device)
        network = model.objective.network
        settings: dict[str, Any] = {"neighbors": self.neighbors, "classes": self.classes}
        settings |= {"center": network.center.cpu(), "spread": network.spread.cpu()}
        plans = plan_films(self.strategy, films, self.count, self.seed, self.first, **settings)
        sheet: list[torch.Tensor] = []
        records, drawing_s = [], 0.0
        for at in range(0, len(plans), self.batch_size):
            batch, numbers = plans[at : at + self.batch_size], range(self.first + at, self.first + at + self.batch_size)
            began = time.perf_counter()
            drawn = self.draw(batch, [film_seed(self.seed, number) for number, _ in zip(numbers, batch, strict=False)])
            drawing_s += time.perf_counter() - began
            sheet += list(drawn[: max(0, _SHEET - at)])
            records += [
                self._write(film, number, plan) for film, number, plan in zip(drawn, numbers, batch, strict=False)
            ]
            _LOGGER.info("%d of %d films drawn", len(records), self.count)
        captions = [f"{self.first + index}" for index in range(len(sheet))]
        write_picture(self.output_dir / "contact_sheet.png", contact_sheet(torch.stack(sheet), captions, _COLUMNS))
        facts = {**self.describe(), "films_per_s": round(len(records) / drawing_s, 4), "films": records}
        write_text(self.output_dir / "manifest.json", json.dumps(facts, indent=1))
        write_manifest(self.output_dir, {"model": model.card["sha256"]}, [self.seed])
        return facts

    def draw(self, plans: Sequence[Plan], seeds: Sequence[int]) -> torch.Tensor:
        """Draw some films.

        Args:
            plans: from :func:`~monai_landmark.generation.strategies.plan_films` over the films.
            seeds: one a film.

        Returns:
            ``(B, 1, H, W)`` on the CPU, in [-1, 1].
        """
        device, shape = self.generator.device, self.generator.latent_shape
        noise = torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        tokens = torch.stack([plan.tokens for plan in plans])
        start = self._started_from(plans).to(device) if self.strategy == "start" else None

        def drawn(noise: torch.Tensor) -> torch.Tensor:
            """The films of this noise."""
            objective = self.generator.objective
            return draw_films(objective, tokens, noise, self.steps, self.guidance, start, self.strength)

        films: torch.Tensor = self.inferer(noise.to(device), drawn)
        return films.cpu()

    def describe(self) -> dict[str, Any]:
        """What is the same for all films of the run.

        Returns:
            JSON facts.
        """
        facts: dict[str, Any] = {
            "synthetic": True,
            "use": "research only; shows nobody, and stands under the terms of the films that the model was trained on",
            "model_sha256": self.generator.card["sha256"],
            "embedding": self.generator.card["embedding"],
            "strategy": self.strategy,
            "guidance": self.guidance,
            "steps": self.steps,
            "seed": self.seed,
            "spatial_size": list(self.generator.spatial_size),
            "cover": self.generator.cover,
        }
        return facts | ({"strength": self.strength} if self.strategy == "start" else {})

    def _started_from(self, plans: Sequence[Plan]) -> torch.Tensor:
        prepared = film_preprocessing(self.generator.spatial_size, self.generator.cover)
        return torch.stack([prepared(dict(self.films[plan.films[0]]))["image"].as_tensor() for plan in plans])

    def _write(self, film: torch.Tensor, number: int, plan: Plan) -> dict[str, Any]:
        """One film as a file, and what the manifest says of it."""
        picture: NDArray[np.uint8] = ((film[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        seed, model = film_seed(self.seed, number), self.generator.card["sha256"]
        name = f"synthetic_{number:06d}.{'png' if self.file_format == 'png' else 'dcm'}"
        path = self.output_dir / "films" / name
        if self.file_format == "png":
            write_picture(path, picture)
        else:
            write_synthetic_dicom(path, picture, model, seed)
        record: dict[str, Any] = {
            "image": f"films/{name}",
            "seed": seed,
            "sources": [file_sha256(self.films[each]["image"]) for each in plan.films],
            **plan.facts,
        }
        if self.name_sources:
            record["source_ids"] = [str(self.films[each]["id"]) for each in plan.films]
        if self.classes is not None:
            record["class"] = str(self.classes[plan.films[0]])
        return record


def classes_of(films: Sequence[Item], name: str, table: str | PathLike[str] | None = None) -> list[Any]:
    """The class of every film.

    Args:
        films: items with ``id``.
        name: of the field, or of the table's column.
        table: CSV with the columns ``id`` and ``name``; it overrules the films.

    Returns:
        One a film.

    Raises:
        ConfigurationError: if a film has none.
    """
    known: dict[str, Any] = {str(film["id"]): film[name] for film in films if film.get(name) not in (None, "")}
    if table is not None:
        with open(table, encoding="utf-8", newline="") as stream:
            known |= {row["id"]: row[name] for row in csv.DictReader(stream) if row.get("id") and row.get(name)}
    missing = [str(film["id"]) for film in films if str(film["id"]) not in known]
    if missing:
        raise ConfigurationError(
            f"{len(missing)} of {len(films)} films have no class",
            file=table,
            field=name,
            expected="a value for every film",
            action="name the field of the datalist, or a CSV with the columns id and this one as class_table",
        )
    return [known[str(film["id"])] for film in films]
