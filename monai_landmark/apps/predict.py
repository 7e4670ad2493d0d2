"""Landmarks for films, one by one, with a trained bundle: the way that serves a person at a desk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import list_data_collate

from monai_landmark.errors import ConfigurationError, unwrapped
from monai_landmark.networks import model_card
from monai_landmark.results.collect import landmark_result
from monai_landmark.results.result import LandmarkResult
from monai_landmark.safety import open_config

__all__ = ["LandmarkPredictor"]


class LandmarkPredictor:
    """Predict one film at a time with the network, transforms and weights of a bundle's ``inference.yaml``.

    Args:
        bundle: folder of the bundle.
        model_dir: folder that ``train`` wrote; the bundle's ``models`` by default.
        device: a torch device; a GPU if there is one by default.
        trust: SHA-256 of an ``inference.yaml`` that may run whatever it does, see
            :func:`monai_landmark.safety.open_config`.
        **overrides: further keys of ``inference.yaml``; ``calibration=None`` leaves ``uncertainty.json`` alone.

    Raises:
        ConfigurationError: if the folder is no bundle, or its configuration does more than one from elsewhere may.
        WeightsError: if the weights are absent or do not fit, or the calibration is of other weights.
    """

    def __init__(
        self,
        bundle: str | PathLike[str],
        model_dir: str | PathLike[str] | None = None,
        device: str | None = None,
        trust: Sequence[str] = (),
        **overrides: Any,
    ) -> None:
        config = Path(bundle) / "configs" / "inference.yaml"
        if not config.is_file():
            raise ConfigurationError("not a bundle", file=config, action="give a folder that has this file")
        parser = open_config(config, trust)
        parser.update({"bundle_root": str(bundle), "films": [], **overrides})
        if model_dir is not None:
            parser["model_dir"] = str(model_dir)
        if device is not None:
            parser["device"] = f"$torch.device('{torch.device(device)}')"
        self.schema = parser.get_parsed_content("landmarks")
        self.card = model_card(parser.get_parsed_content("model_dir"))
        self.inference: dict[str, Any] = parser.get_parsed_content("inference")
        self.calibration = _calibration(parser)
        self.device: torch.device = parser.get_parsed_content("device")
        self.network = parser.get_parsed_content("network").eval()
        parser.get_parsed_content("weights")()
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.inferer = parser.get_parsed_content("inferer")
        self.postprocessing = parser.get_parsed_content("postprocessing")

    def __call__(self, item: Mapping[str, Any]) -> LandmarkResult:
        """Predict one film.

        Args:
            item: see :func:`monai_landmark.data.films.film_items`.

        Returns:
            Its landmarks.

        Raises:
            FilmError: if the film cannot be read truthfully.
        """
        return self.result(item["id"], *self.maps(item))

    @torch.inference_mode()
    def maps(self, item: Mapping[str, Any]) -> tuple[Any, torch.Tensor]:
        """What the network says of one film.

        Args:
            item: as for :meth:`__call__`.

        Returns:
            The film on the network's grid, with its affine, and ``(K, H, W)`` logits.

        Raises:
            FilmError: if the film cannot be read truthfully.
        """
        loaded = self._load({key: item[key] for key in ("image", "spacing", "spacing_source") if key in item})
        image = list_data_collate([{"image": loaded["image"]}])["image"].to(self.device)
        return loaded["image"], self.inferer(image, self.network)[0]

    @torch.inference_mode()
    def result(self, film: str, image: Any, logits: torch.Tensor) -> LandmarkResult:
        """Landmarks from maps.

        Args:
            film: id of the film.
            image: see :meth:`maps`.
            logits: likewise.

        Returns:
            The landmarks.
        """
        found = self.postprocessing({"image": image, "pred": logits})
        known = (self.schema, self.card, found.get("expected_error"), self.calibration)
        return landmark_result(film, found["pred"], found.get("confidence"), image.meta, *known)

    def _load(self, item: dict[str, Any]) -> Any:
        """The preprocessed film; MONAI wraps what a transform raises, and the reason for a refusal is inside."""
        with unwrapped():
            return self.preprocessing(item)


def _calibration(parser: ConfigParser) -> Any:
    """What the config says of it; MONAI's parser wraps the reason for a refusal."""
    with unwrapped():
        return parser.get_parsed_content("calibration")
