"""Maps of several networks, or of one whose dropout stays on, as one map that is as wide as they disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from monai_landmark.engines.views import ViewInferer
from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import model_card

__all__ = ["MixtureInferer", "inference_facts"]


def inference_facts(
    views: Sequence[Sequence[float]], dropout_samples: int = 1, members: Sequence[str | PathLike[str]] = ()
) -> dict[str, Any]:
    """How maps are made, besides by the network itself: what was calibrated for one way does not hold for another.

    Args:
        views: see :class:`monai_landmark.engines.ViewInferer`.
        dropout_samples: see :class:`MixtureInferer`.
        members: folders of the further networks.

    Returns:
        JSON facts: ``views``, ``dropout_samples`` and ``members``, the hashes of their weights.
    """
    return {
        "views": [[float(number) for number in view] for view in views],
        "dropout_samples": int(dropout_samples),
        "members": [model_card(folder, required="sha256")["sha256"] for folder in members],
    }


class MixtureInferer(Inferer):
    """Log of the mean probability over an ensemble and over draws of dropout.

    Deep ensembles (Lakshminarayanan et al., NeurIPS 2017) and Monte Carlo dropout (Gal & Ghahramani, ICML 2016), for
    probability maps: the mean of the maps that each network and each draw gives. Its spread, and so the expected radial
    error, holds what each map says of itself and how far the maps lie apart.

    Args:
        inferer: runs one network, once.
        members: further networks of the same landmarks on the same grid.
        samples: draws of dropout from each network; 1: dropout is off. The draws are the same for every film.
        seed: of the draws.
    """

    def __init__(
        self, inferer: Inferer | None = None, members: Sequence[nn.Module] = (), samples: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        self.inferer, self.members = inferer or ViewInferer(), tuple(member.eval() for member in members)
        self.samples, self.seed = samples, seed
        if samples < 1:
            raise ConfigurationError("not a number of draws", field="samples", value=samples, expected="at least 1")

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run all networks.

        Args:
            inputs: ``(B, C, H, W)``.
            network: a landmark network, the first of the ensemble.
            *args: passed on.
            **kwargs: passed on.

        Returns:
            ``(B, K, H, W)``: the network's own logits where it is alone and without dropout, else log-probabilities.

        Raises:
            ConfigurationError: if several draws are asked of a network that was trained without dropout.
        """
        networks = (network, *self.members)
        if len(networks) * self.samples == 1:
            alone: torch.Tensor = self.inferer(inputs, network, *args, **kwargs)
            return alone
        total = torch.tensor(-math.inf)
        for member in networks:
            with self._dropout(member):
                for _ in range(self.samples):
                    logits = self.inferer(inputs, member, *args, **kwargs)
                    maps = logits.flatten(2).log_softmax(-1).view_as(logits)
                    total = torch.logaddexp(total.to(maps), maps)
        return total - math.log(len(networks) * self.samples)

    @contextmanager
    def _dropout(self, network: nn.Module) -> Iterator[None]:
        """Dropout on where draws are asked for; random numbers elsewhere go on as before."""
        if self.samples == 1:
            yield
            return
        layers = [layer for layer in network.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]
        if not layers:
            raise ConfigurationError(
                "a network without dropout gives the same map again and again",
                field="dropout_samples",
                value=self.samples,
                expected="1",
                action="train with `--dropout 0.1`, or ask for one sample",
            )
        device = next(network.parameters()).device
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(self.seed)
                for layer in layers:
                    layer.train()
                yield
        finally:
            for layer in layers:
                layer.eval()
