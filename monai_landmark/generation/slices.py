"""How like real CT slices those are that a pre-trained diffusion network draws: FID, sFID, KID, precision, recall, F1.

Every number names the network whose features are compared, and stands beside the same number of as many real slices of
other patients (see :mod:`monai_landmark.generation.fidelity`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import DiffusionInferer
from torch.nn import functional

from monai_landmark.data.scan_list import slices_of
from monai_landmark.data.scan_reader import SCANS
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import write_text
from monai_landmark.generation.embedding import FilmEmbedder
from monai_landmark.generation.fidelity import fidelity, token_features
from monai_landmark.manifest import write_manifest
from monai_landmark.networks import model_card
from monai_landmark.pretraining.diffusion import DiffusionObjective
from monai_landmark.pretraining.samples import GuidedNetwork, contact_sheet, keyed_noise, write_picture

__all__ = ["SliceEvaluation", "draw_slices"]

_LOGGER = logging.getLogger(__name__)
_SHOWN = 16  # drawn slices in the picture
Item = Mapping[str, Any]


@torch.no_grad()
def draw_slices(
    objective: DiffusionObjective,
    count: int,
    spatial_size: Sequence[int],
    sources: Sequence[int] | None = None,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 16,
) -> torch.Tensor:
    """Draw slices from noise by DDIM (Song et al., ICLR 2021), or by Euler steps along the flow.

    Args:
        objective: with a trained network.
        count: number of slices N.
        spatial_size: ``(H, W)`` of the network's grid.
        sources: condition of each, for a network that is told one; it is told no more than that (guidance 1).
        steps: from noise to slice.
        seed: of the noise; a slice depends on its own number alone.
        batch_size: slices at a time.

    Returns:
        ``(N, 1, H, W)`` in [-1, 1].
    """
    device = next(objective.parameters()).device
    told = torch.as_tensor(sources) if objective.sources and sources is not None else None
    noise, drawn = keyed_noise(seed, count, (1, *spatial_size)), []
    for part in torch.split(torch.arange(count), batch_size):
        guided = GuidedNetwork(objective, None if told is None else told[part].to(device))
        scheduler = objective.sampling_scheduler(steps)
        latent: Any = DiffusionInferer(scheduler).sample(noise[part].to(device), guided, scheduler, verbose=False)
        drawn.append(objective.decode(latent).clamp(-1, 1).float().cpu())
    return torch.cat(drawn)


class SliceEvaluation:
    """Draws slices and holds them against those the network was trained on, and those against other patients'.

    Args:
        objective: see :func:`monai_landmark.pretraining.trained.trained_objective`.
        model_dir: its folder.
        slices: real ones that the network was trained on, items of :func:`monai_landmark.data.slice_pool.slice_pool`.
        others: scans of other patients that it never saw, items of a list of scans.
        preprocessing: from an item of a slice to ``image``, ``(1, H, W)`` in [-1, 1], as in training.
        judge: network whose features are compared.
        output_dir: receives ``fidelity.json``, ``run.json`` and ``drawn.png``, which shows drawn slices alone.
        count: slices of each kind, at most.
        steps: see :func:`draw_slices`.
        batch_size: slices at a time.
        seed: of the noise and of the choice of real slices.

    Raises:
        ConfigurationError: if there are fewer than two slices of a kind.
    """

    def __init__(
        self,
        objective: DiffusionObjective,
        model_dir: str | PathLike[str],
        slices: Sequence[Item],
        others: Sequence[Item],
        preprocessing: Callable[[Any], Any],
        judge: FilmEmbedder,
        output_dir: str | PathLike[str],
        count: int = 400,
        steps: int = 50,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        self.objective, self.preprocessing, self.judge = objective, preprocessing, judge
        self.model_dir, self.output_dir = Path(model_dir), Path(output_dir)
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        generator = np.random.default_rng(seed)
        unseen = [one for scan in others for one in slices_of(scan)]
        self.slices, self.others = (
            [given[index] for index in np.sort(generator.permutation(len(given))[:count])] for given in (slices, unseen)
        )
        self.count = min(count, len(self.slices), len(self.others))
        if self.count < 2:
            value = {"count": count, "slices": len(slices), "others": len(unseen)}
            raise ConfigurationError("too few slices", field="count", value=value, expected="at least two of each kind")

    def run(self) -> dict[str, Any]:
        """Draw, measure and write.

        Returns:
            What ``fidelity.json`` says.
        """
        real, other = self._loaded(self.slices), self._loaded(self.others)
        sources = [int(item.get("source", 0)) for item in self.slices[: self.count]]
        drawn = draw_slices(
            self.objective, self.count, real.shape[-2:], sources, self.steps, self.seed, self.batch_size
        )
        network = f"{self.judge.architecture} {self.judge.describe()['key'][:12]}"
        kept, made, unseen = (self._features(slices) for slices in (real, drawn, other))
        found = fidelity(kept, made, unseen, network, self.seed)
        model_sha256 = model_card(self.model_dir).get("sha256")
        facts = {"model": model_sha256, "steps": self.steps, "seed": self.seed, "grid": list(real.shape[-2:])}
        report = {**facts, "fidelity": found}
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.output_dir / "fidelity.json", json.dumps(report, indent=1) + "\n")
        write_manifest(self.output_dir, {"model": model_sha256}, [self.seed])
        shown = drawn[:_SHOWN]
        names = [f"drawn {number + 1}" for number in range(len(shown))]
        write_picture(self.output_dir / "drawn.png", contact_sheet(shown, names, columns=min(8, len(shown))))
        told = {name: found[name] for name in ("network", "n", "fid", "sfid", "f1") if name in found}
        _LOGGER.info("%s", json.dumps(told))
        return report

    def _loaded(self, items: Sequence[Item]) -> torch.Tensor:
        images = [self.preprocessing(dict(item))["image"].as_tensor() for item in items]
        SCANS.clear()
        return torch.stack(images).float()

    def _features(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens, device = [], self.judge.center.device
        for batch in torch.split(slices, self.batch_size):
            shown = functional.interpolate(batch, self.judge.spatial_size, mode="bilinear", antialias=True)
            tokens.append(self.judge(shown.to(device)).float().cpu())
        return token_features(torch.cat(tokens))
