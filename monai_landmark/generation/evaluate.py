"""What drawn films are worth, in one file: how like real films they are, whether any is a copy, whether training leaks.

Every number stands beside the same number of real films that the model never saw, and names the network that judges.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from monai_landmark.data.duplicates import find_duplicates, fingerprint
from monai_landmark.data.formats import read_film
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256, write_text
from monai_landmark.generation.copies import (
    Copies,
    feature_likeness,
    find_copies,
    membership_test,
    structure_likeness,
    write_pairs,
)
from monai_landmark.generation.embedding import FilmEmbedder, film_preprocessing
from monai_landmark.generation.fidelity import fidelity, token_features
from monai_landmark.manifest import write_manifest

__all__ = ["FilmEvaluation"]

_LOGGER = logging.getLogger(__name__)
_SIDE = 64  # longest side on which structures are compared
_BATCH = 16
Item = Mapping[str, Any]


class FilmEvaluation:
    """Holds drawn films against those the model was trained on, and against others.

    Args:
        drawn_dir: folder that ``generate`` wrote, with ``manifest.json``.
        films: all films that the model was trained on, items with ``image`` and, where known, ``patient``.
        others: films of other patients that it never saw.
        output_dir: receives ``evaluation.json``, ``run.json``, and ``nearest_structure.png`` and
            ``nearest_features.png``, which show real films. In the file a real film is the SHA-256 of its file.
        judge: network whose features are compared.
        most: films of each kind, chosen by ``seed``, so that the work does not grow with the square of the pool.
            Drawn films are held against every film trained on all the same; the threshold for a copy then comes from
            fewer pairs, is lower, and finds more copies, not fewer.
        seed: of the choice and of the bootstrap.
    """

    def __init__(
        self,
        drawn_dir: str | PathLike[str],
        films: Sequence[Item],
        others: Sequence[Item],
        output_dir: str | PathLike[str],
        judge: FilmEmbedder,
        most: int = 400,
        seed: int = 0,
    ) -> None:
        self.drawn_dir, self.output_dir, self.judge = Path(drawn_dir), Path(output_dir), judge
        self.manifest: dict[str, Any] = json.loads((self.drawn_dir / "manifest.json").read_text(encoding="utf-8"))
        self.films = list(films)
        generator = np.random.default_rng(seed)
        drawn = [{**record, "image": str(self.drawn_dir / record["image"])} for record in self.manifest["films"]]
        self.drawn = [drawn[index] for index in np.sort(generator.permutation(len(drawn))[:most])]
        self.others = [others[index] for index in np.sort(generator.permutation(len(others))[:most])]
        self.sample = np.sort(generator.permutation(len(self.films))[:most])
        self.seed = seed
        for name, given in (("drawn_dir", self.drawn), ("films", self.films), ("others", self.others)):
            if len(given) < 2:
                raise ConfigurationError("too few films", field=name, value=len(given), expected="at least two")

    def run(self) -> dict[str, Any]:
        """Measure and write.

        Returns:
            What ``evaluation.json`` says.
        """
        films = {name: self._films(items) for name, items in self._sets().items()}
        features = {name: self._features(images) for name, images in films.items()}
        some = {kind: values[self.sample] for kind, values in features["films"].items()}
        network = f"{self.judge.architecture} {self.judge.describe()['key'][:12]}"
        report: dict[str, Any] = {"drawn": len(self.drawn), "trained_on": len(self.films), "others": len(self.others)}
        report["fidelity"] = fidelity(some, features["drawn"], features["others"], network, self.seed)
        pictures = {name: _small(images) for name, images in films.items()}
        pooled = {name: values["pooled"] for name, values in features.items()}
        report["copies"], report["membership"] = {}, {}
        for kind, space, likeness in (
            ("structure", pictures, structure_likeness),
            ("features", pooled, feature_likeness),
        ):
            near = likeness(space["drawn"], space["films"])
            known = likeness(space["films"][self.sample], space["films"][self.sample])
            unseen = likeness(space["drawn"], space["others"])
            copies = find_copies(near, known, self._patients(), self._one_exposure())
            copies = Copies(copies.likeness, copies.nearest, copies.threshold, self._of_all(copies.pair))
            names = self._names(copies)
            report["copies"][kind] = copies.describe(names)
            report["membership"][kind] = membership_test(near[:, self.sample].amax(0), unseen.amax(0), self.seed)
            write_pairs(self.output_dir / f"nearest_{kind}.png", pictures["drawn"], pictures["films"], copies, names)
        report["classes"] = dict(Counter(str(record["class"]) for record in self.drawn if "class" in record))
        write_text(self.output_dir / "evaluation.json", json.dumps(report, indent=1) + "\n")
        write_manifest(self.output_dir, {"model": self.manifest["model_sha256"]}, [self.seed])
        _LOGGER.info("%s", json.dumps({name: report["fidelity"][name] for name in ("n", "fid", "kid", "coverage")}))
        for kind, found in report["copies"].items():
            _LOGGER.info("%d of %d drawn films are copies by %s", found["copies"], found["drawn"], kind)
        return report

    def _sets(self) -> dict[str, Sequence[Item]]:
        return {"drawn": self.drawn, "films": self.films, "others": self.others}

    def _films(self, items: Sequence[Item]) -> torch.Tensor:
        """``(N, 1, H, W)`` all on the grid of the drawn films: nothing is told by resolution alone."""
        prepared = film_preprocessing(self.manifest["spatial_size"], self.manifest.get("cover", False))
        return torch.stack([prepared({"image": item["image"]})["image"].as_tensor() for item in items])

    def _features(self, films: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens, device = [], self.judge.center.device
        for batch in torch.split(films, _BATCH):
            shown = functional.interpolate(batch, self.judge.spatial_size, mode="bilinear", antialias=True)
            tokens.append(self.judge(shown.to(device)).float().cpu())
        return token_features(torch.cat(tokens))

    def _patients(self) -> list[str]:
        """Of the sampled films; one without a name is a patient of its own."""
        items = [self.films[index] for index in self.sample]
        return [str(item.get("patient") or f"film {number}") for number, item in enumerate(items)]

    def _one_exposure(self) -> list[tuple[int, int]]:
        """Pairs of the sampled films that show one exposure."""
        prints = {
            str(number): fingerprint(read_film(self.films[index]["image"]).pixels)
            for number, index in enumerate(self.sample)
        }
        return [(int(pair.first), int(pair.second)) for pair in find_duplicates(prints)]

    def _of_all(self, pair: tuple[int, int]) -> tuple[int, int]:
        return int(self.sample[pair[0]]), int(self.sample[pair[1]])

    def _names(self, copies: Copies) -> dict[int, str]:
        """Hashes of the files that the finding speaks of."""
        spoken_of = {int(index) for index in copies.nearest} | set(copies.pair)
        return {index: file_sha256(self.films[index]["image"])[:16] for index in sorted(spoken_of)}


def _small(films: torch.Tensor) -> torch.Tensor:
    """At most 64 pixels along the longer side, in the same proportions."""
    scale = min(1.0, _SIDE / max(films.shape[-2:]))
    size = [max(1, round(side * scale)) for side in films.shape[-2:]]
    return functional.interpolate(films, size=size, mode="area")
