"""What the way through an autoencoder costs a landmark detector: films before and after it, for the same `evaluate`."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from monai_landmark.data.datalist import Datalist, Item, load_datalist, save_datalist
from monai_landmark.generation.carried import item_on_grid
from monai_landmark.generation.embedding import film_preprocessing
from monai_landmark.generation.latents import stated_card, trained_autoencoder
from monai_landmark.pretraining.samples import write_picture
from monai_landmark.transforms import MillimetersToGridd

__all__ = ["RoundTrip"]

_LOGGER = logging.getLogger(__name__)


class RoundTrip:
    """Write annotated films as they go into the autoencoder, and as they come back.

    Both on the autoencoder's grid, so that `evaluate` of the landmark bundle over ``before`` and ``after`` differs by
    the autoencoder alone; over the films themselves it says what the grid costs beside.

    Args:
        datalist: with annotated films.
        section: which of them.
        autoencoder: folder that `autoencode` wrote.
        output_dir: receives ``before`` and ``after``, each with ``datalist.json`` and ``images``.
        device: where the autoencoder runs.
    """

    def __init__(
        self,
        datalist: str | PathLike[str],
        section: str,
        autoencoder: str | PathLike[str],
        output_dir: str | PathLike[str],
        device: torch.device | str = "cpu",
    ) -> None:
        self.datalist, self.section, self.autoencoder = Path(datalist), section, autoencoder
        self.output_dir, self.device = Path(output_dir), torch.device(device)

    @torch.no_grad()
    def run(self) -> dict[str, list[Item]]:
        """Write the films.

        Returns:
            The items of both datalists, by ``before`` and ``after``.
        """
        network: Any = trained_autoencoder(self.autoencoder).to(self.device)
        prepare = film_preprocessing(stated_card(self.autoencoder, "autoencoder")["spatial_size"])
        on_grid = MillimetersToGridd("landmarks", "image")
        items: dict[str, list[Item]] = {"before": [], "after": []}
        for number, film in enumerate(load_datalist(self.datalist, self.section)):
            shown = on_grid(prepare(film))
            back = network.reconstruct(shown["image"].as_tensor()[None].to(self.device))[0].cpu()
            for side, pixels in (("before", shown["image"].as_tensor()), ("after", back)):
                items[side].append(self._write(side, f"{number:05d}.png", film, pixels, shown))
        known = Datalist.load(self.datalist)
        for side, written in items.items():
            notes = [f"films on the grid of an autoencoder, {side} it", *known.notes]
            folder = self.output_dir / side
            content = Datalist(known.name, known.schema, folder, {"test": written}, known.reader, notes=notes)
            save_datalist(content, folder / "datalist.json")
        _LOGGER.info("%d films written before and after the autoencoder", len(items["before"]))
        return items

    def _write(self, side: str, name: str, film: Item, pixels: torch.Tensor, shown: Any) -> Item:
        """One film as PNG, and its item with the landmarks in its pixels."""
        path = self.output_dir / side / "images" / name
        write_picture(path, ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy())
        return item_on_grid(film, shown, path)
