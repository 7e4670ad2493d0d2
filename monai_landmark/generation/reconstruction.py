"""How much of a film survives the autoencoder: SSIM and PSNR on films held out, and pictures of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.metrics import PSNRMetric, SSIMMetric
from torch import nn

from monai_landmark.pretraining.samples import contact_sheet, stack_films, write_picture
from monai_landmark.pretraining.validation import History

__all__ = ["ReconstructionHandler", "reconstruction_quality"]

_LOGGER = logging.getLogger(__name__)
_RANGE = 2.0  # of a film in [-1, 1]
_WINDOW = 11  # of SSIM, Wang et al., 2004


def reconstruction_quality(films: torch.Tensor, reconstructed: torch.Tensor) -> dict[str, float]:
    """MONAI's SSIM and PSNR, and the mean absolute error.

    Args:
        films: ``(N, 1, H, W)`` in [-1, 1].
        reconstructed: of the same shape.

    Returns:
        ``ssim``, ``psnr_db`` and ``error``, means over the films; the error as a share of the range.
    """
    window = min(_WINDOW, *(side - 1 + side % 2 for side in films.shape[-2:]))
    ssim: Any = SSIMMetric(spatial_dims=2, data_range=_RANGE, win_size=window)(reconstructed, films)
    psnr: Any = PSNRMetric(max_val=_RANGE)(reconstructed, films)
    error = (films - reconstructed).abs().mean() / _RANGE
    return {"ssim": float(ssim.mean()), "psnr_db": float(psnr.mean()), "error": float(error)}


class ReconstructionHandler:
    """Handler that sends held-out films through the averaged autoencoder, every few epochs and at the end.

    Args:
        network: the averaged autoencoder.
        films: held-out films, items with ``image`` ``(1, H, W)`` in [-1, 1].
        folder: receives ``reconstruction.json``, and ``samples/step_<number>_reconstructed.png``: a row of films,
            one of what came back, and one of the difference (gray: none).
        every_epochs: how often.
        shown: films in a picture.
        writer: a TensorBoard ``SummaryWriter`` that receives the numbers too.
    """

    def __init__(
        self,
        network: nn.Module,
        films: Sequence[Any],
        folder: str | PathLike[str],
        every_epochs: int = 5,
        shown: int = 8,
        writer: Any = None,
    ) -> None:
        self.network, self.folder = network, Path(folder)
        self.films, _ = stack_films(films)
        self.every_epochs, self.shown, self.writer = every_epochs, shown, writer
        self.history = History(self.folder / "reconstruction.json")

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        self.history.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every_epochs) | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Measure, log and show, unless this step has been.

        Args:
            engine: the trainer; its step names the picture.
        """
        step = engine.state.iteration
        if self.history.has(step):
            return
        reconstructed = self.reconstruct()
        found = {name: round(value, 5) for name, value in reconstruction_quality(self.films, reconstructed).items()}
        self.history.add({"step": step, "epoch": engine.state.epoch, **found}, films=len(self.films))
        _LOGGER.info("%d films held out: SSIM %.3f, PSNR %.1f dB", len(self.films), found["ssim"], found["psnr_db"])
        for name, value in found.items() if self.writer is not None else ():
            self.writer.add_scalar(f"reconstruction/{name}", value, step)
        films, back = self.films[: self.shown], reconstructed[: self.shown]
        rows = torch.cat([films, back, back - films])
        captions = [name for name in ("film", "reconstructed", "difference") for _ in films]
        write_picture(
            self.folder / "samples" / f"step_{step:07d}_reconstructed.png", contact_sheet(rows, captions, len(films))
        )

    @torch.no_grad()
    def reconstruct(self) -> torch.Tensor:
        """What comes back of the held-out films.

        Returns:
            ``(N, 1, H, W)`` on the CPU, clipped to [-1, 1].
        """
        device = next(self.network.parameters()).device
        reconstruct: Any = self.network.reconstruct
        decoded: list[torch.Tensor] = [reconstruct(film[None].to(device)) for film in self.films]
        return torch.cat(decoded).clamp(-1, 1).float().cpu()
