"""What a diffusion model that is told an embedding draws while it trains: beside each film, films of its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from ignite.engine import Engine
from torch import nn

from monai_landmark.generation.diffusion import GenerationObjective
from monai_landmark.pretraining.samples import SampleHandler, contact_sheet, stack_films

__all__ = ["EmbeddingSampleHandler"]


class EmbeddingSampleHandler(SampleHandler):
    """Films drawn from the embeddings of held-out films, every few epochs and at the end.

    Args:
        objective: see :class:`~monai_landmark.pretraining.samples.SampleHandler`.
        network: likewise.
        films: held-out films with their embeddings as ``source``.
        folder: likewise; ``step_<number>_samples.png`` has a row of films above a row of what was drawn from them.
        every_epochs: likewise.
        count: of films drawn; as many embeddings as there are held-out films, then from the first one again.
        steps: likewise.
        guidance: likewise.
        seed: likewise.
        writer: likewise.
    """

    def __init__(
        self,
        objective: GenerationObjective,
        network: nn.Module,
        films: Sequence[Any],
        folder: str | PathLike[str],
        every_epochs: int = 5,
        count: int = 16,
        steps: int = 25,
        guidance: float = 2.0,
        seed: int = 0,
        writer: Any = None,
    ) -> None:
        super().__init__(
            objective, network, films, folder, every_epochs, count, steps, guidance, seed=seed, writer=writer
        )
        shown, told = stack_films(films, count)
        self._turn = torch.arange(count) % len(shown)
        self._shown, self._told = shown, told

    def __call__(self, engine: Engine) -> None:
        """Write both sheets.

        Args:
            engine: the trainer; its step names the files.
        """
        step, columns = engine.state.iteration, min(8, self.count)
        rows, captions = [], []
        for drawn, turn in zip(
            torch.split(self.latest(engine), columns), torch.split(self._turn, columns), strict=True
        ):
            blank = -torch.ones(columns - len(drawn), *drawn.shape[1:])
            rows += [self._shown[turn], blank, drawn, blank]
            captions += [f"film {int(each) + 1}" for each in turn] + [""] * len(blank)
            captions += [f"drawn from {int(each) + 1}" for each in turn] + [""] * len(blank)
        self._show("samples", step, contact_sheet(torch.cat(rows), captions, columns))
        self._show("denoised", step, contact_sheet(*self.denoising_strip(), columns=1 + len(self.noise_levels)))

    def _sample_sources(self) -> torch.Tensor | None:
        return None if self._told is None else self._told[self._turn]
