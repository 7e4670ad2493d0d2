"""Pictures of what a diffusion network has learned: samples from noise, and films that it denoises."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import DiffusionInferer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from monai_landmark.engines.averaging import averaged
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import replace_file
from monai_landmark.pretraining.diffusion import DiffusionObjective

__all__ = ["GuidedNetwork", "SampleHandler", "contact_sheet", "keyed_noise", "stack_films", "write_picture"]

_TILE = 224  # longest side of a film in a sheet
_LINE = 18  # height of a caption


def stack_films(data: Sequence[Any], count: int | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first films of a dataset as one batch.

    Args:
        data: items with ``image`` ``(1, H, W)`` and, where films have one, ``source``.
        count: how many at most; None for all.

    Returns:
        ``(N, 1, H, W)`` and the sources, ``(N,)`` or what else a network is told of a film, or None.

    Raises:
        ConfigurationError: if there is no film.
    """
    items = [data[index] for index in range(len(data) if count is None else min(count, len(data)))]
    if not items:
        raise ConfigurationError("no film held out", field="films", value=0, expected="at least one")
    films = torch.stack([torch.as_tensor(np.asarray(item["image"]), dtype=torch.float32) for item in items])
    if "source" not in items[0]:
        return films, None
    return films, torch.stack([torch.as_tensor(item["source"]) for item in items])


def keyed_noise(seed: int, count: int, shape: Sequence[int]) -> torch.Tensor:
    """The same Gaussian noise whenever it is asked for; torch's own generator is not touched.

    Args:
        seed: seed of the run.
        count: number of films N; the noise of a film does not depend on how many there are.
        shape: of one film.

    Returns:
        ``(N, *shape)`` on the CPU.
    """
    keys = [int(np.random.SeedSequence([seed, index]).generate_state(1)[0]) for index in range(count)]
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(key)) for key in keys])


class GuidedNetwork(nn.Module):
    """An objective's network under classifier-free guidance (Ho and Salimans, 2022), as MONAI's inferer calls it.

    Args:
        objective: asks its network.
        source: ``(B,)`` source of each film; None for the null condition, or a network that is told none.
        guidance: 1 for the plain conditional prediction; above it the source is overdrawn.
    """

    def __init__(
        self, objective: DiffusionObjective, source: torch.Tensor | None = None, guidance: float = 1.0
    ) -> None:
        super().__init__()
        self.objective, self.source, self.guidance = objective, source, guidance

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Guided prediction.

        Args:
            x: ``(B, C, H, W)`` noisy films.
            timesteps: one for all, or ``(B,)``.
            context: not used; MONAI's inferer gives it.

        Returns:
            ``(B, C, H, W)``: null + guidance * (conditional - null).
        """
        timesteps = timesteps.to(x.device).expand(len(x))
        known = self.objective.predict(x, timesteps, self.source)
        if self.source is None or self.guidance == 1.0:
            return known
        null = self.objective.predict(x, timesteps, None)
        return null + self.guidance * (known - null)


def contact_sheet(films: torch.Tensor, captions: Sequence[str], columns: int) -> NDArray[np.uint8]:
    """Films side by side in true proportions, each with a line below it.

    Gray values are those of the network, -1 black and 1 white, never stretched film by film: a sample that is too pale
    looks too pale.

    Args:
        films: ``(N, 1, H, W)``.
        captions: one a film.
        columns: films in a row.

    Returns:
        ``(rows, columns)`` gray picture.
    """
    height, width = films.shape[-2:]
    scale = _TILE / max(height, width)
    tall, wide = round(height * scale), round(width * scale)
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST  # small films show their own pixels
    gray = ((films[:, 0].float().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8).numpy()
    sheet = Image.new("L", (columns * (wide + 4), -(-len(films) // columns) * (tall + _LINE + 4)), 24)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, (film, caption) in enumerate(zip(gray, captions, strict=True)):
        left, top = index % columns * (wide + 4) + 2, index // columns * (tall + _LINE + 4) + 2
        sheet.paste(Image.fromarray(film).resize((wide, tall), how), (left, top))
        draw.text((left + 3, top + tall + 1), caption, fill=230, font=font)
    return np.asarray(sheet)


def write_picture(path: str | PathLike[str], picture: NDArray[np.uint8]) -> None:
    """Write a gray picture as PNG without metadata; a reader never sees half of it.

    Args:
        path: the file.
        picture: ``(rows, columns)``.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    with replace_file(path) as stream:
        stream.write(buffer.getvalue())


class SampleHandler:
    """Draw samples and denoise held-out films with the averaged network, every few epochs and at the end.

    The noise is the same every time, so that the sheets of a run show the same films getting better. Nothing of the
    training changes: weights, mode and random generators stay as they were.

    Args:
        objective: the diffusion objective; its scheduler samples (DDIM, or rectified flow).
        network: the averaged network.
        films: held-out films on the network's grid, items with ``image`` (and ``source``).
        folder: receives ``step_<number>_samples.png`` and ``step_<number>_denoised.png``.
        every_epochs: how often.
        count: number of samples.
        steps: steps from noise to sample.
        guidance: see :class:`GuidedNetwork`; for the samples of a network that is told the source, drawn in turn.
        noise_levels: shares of the diffusion at which held-out films are denoised.
        denoised: how many held-out films are denoised.
        seed: of the noise.
        writer: a TensorBoard ``SummaryWriter`` that receives the sheets too.
    """

    def __init__(
        self,
        objective: DiffusionObjective,
        network: nn.Module,
        films: Sequence[Any],
        folder: str | PathLike[str],
        every_epochs: int = 5,
        count: int = 16,
        steps: int = 25,
        guidance: float = 1.5,
        noise_levels: Sequence[float] = (0.1, 0.25, 0.4, 0.6, 0.8),
        denoised: int = 3,
        seed: int = 0,
        writer: Any = None,
    ) -> None:
        self.objective, self.network, self.folder = objective, network, Path(folder)
        self.films, self.film_sources = stack_films(films, denoised)
        self.every_epochs, self.count, self.steps = every_epochs, count, steps
        self.noise_levels, self.guidance, self.seed, self.writer = tuple(noise_levels), guidance, seed, writer
        self._drawn: tuple[int, torch.Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every_epochs) | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write both sheets.

        Args:
            engine: the trainer; its step names the files.
        """
        step = engine.state.iteration
        samples = self.latest(engine)
        sources = self._sample_sources()
        captions = [f"{i + 1}" if sources is None else f"{i + 1}: source {int(sources[i])}" for i in range(self.count)]
        self._show("samples", step, contact_sheet(samples, captions, columns=min(8, self.count)))
        self._show("denoised", step, contact_sheet(*self.denoising_strip(), columns=1 + len(self.noise_levels)))

    def latest(self, engine: Engine) -> torch.Tensor:
        """The samples of the current step, drawn once however many ask for them.

        Args:
            engine: the trainer.

        Returns:
            ``(count, 1, H, W)`` on the CPU, clipped to [-1, 1].
        """
        step = engine.state.iteration
        if self._drawn is None or self._drawn[0] != step:
            self._drawn = (step, self.draw())
        return self._drawn[1]

    @torch.no_grad()
    def draw(self) -> torch.Tensor:
        """Samples from the keyed noise.

        Returns:
            ``(count, 1, H, W)`` on the CPU, clipped to [-1, 1].
        """
        scheduler = self.objective.sampling_scheduler(self.steps)
        device = next(self.network.parameters()).device
        shape = self.objective.encode(self.films[:1].to(device)).shape[1:]
        noise = keyed_noise(self.seed, self.count, shape).to(device)
        sources = self._sample_sources()
        guided = GuidedNetwork(self.objective, None if sources is None else sources.to(device), self.guidance)
        with averaged(self.objective, self.network):
            latent: Any = DiffusionInferer(scheduler).sample(noise, guided, scheduler, verbose=False)
        samples: torch.Tensor = self.objective.decode(latent).clamp(-1, 1).float().cpu()
        return samples

    @torch.no_grad()
    def denoising_strip(self) -> tuple[torch.Tensor, list[str]]:
        """Held-out films, what noise makes of them, and what the network sees through it at one glance.

        Returns:
            ``(2 * denoised * (1 + levels), 1, H, W)``, for each film a row of it noisy and a row of it denoised; and
            the captions.
        """
        objective = self.objective
        films = objective.encode(self.films.to(next(self.network.parameters()).device))
        noise = keyed_noise(self.seed, len(films), films.shape[1:]).to(films)
        sources = None if self.film_sources is None else self.film_sources.to(films.device)
        timesteps = [round(level * (objective.timesteps - 1)) for level in self.noise_levels]
        noisy, clean = [films], [films]
        with averaged(objective, self.network):
            for t in timesteps:
                level = torch.full((len(films),), t, device=films.device)
                noisy.append(objective.noisy(films, noise, level))
                clean.append(objective.clean(noisy[-1], objective.predict(noisy[-1], level, sources), level))
        rows = torch.stack([torch.stack(noisy, 1), torch.stack(clean, 1)], 1)
        captions = ["film", *(f"noisy, t = {t}" for t in timesteps), "film", *(f"denoised, t = {t}" for t in timesteps)]
        return objective.decode(rows.flatten(0, 2)).cpu(), captions * len(films)

    def _sample_sources(self) -> torch.Tensor | None:
        return torch.arange(self.count) % (self.objective.sources - 1) + 1 if self.objective.sources else None

    def _show(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        write_picture(self.folder / f"step_{step:07d}_{name}.png", picture)
        if self.writer is not None:
            self.writer.add_image(name, picture, step, dataformats="HW")
