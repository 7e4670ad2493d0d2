"""Two processes draw, count, normalize and report what a single one would with the films of both."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import BatchNormAct2d
from torch import nn

from monai_landmark.engines import GlobalLossHandler
from monai_landmark.losses import HeatmapRegressionLoss, SpatialNLLLoss
from monai_landmark.networks import EncoderLandmarkUNet, synchronized
from monai_landmark.pretraining.ddpm import DDPMObjective
from monai_landmark.processes import drawn_for, process_count, process_rank, share_of_all, sum_over_processes

FILMS = 4


def films() -> torch.Tensor:
    """Float64, so that a difference is no matter of rounding."""
    return torch.randn(FILMS, 3, 6, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def maps() -> torch.Tensor:
    """Target maps; the first film lacks all landmarks but one, so that a mean of means is not the mean."""
    target = torch.rand(FILMS, 4, 6, 5, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    target[0, 1:] = 0
    return target


def normalizing() -> nn.Module:
    """Both kinds of batch normalization that landmark networks have."""
    torch.manual_seed(3)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), BatchNormAct2d(4, momentum=0.3))
    return nn.Sequential(*layers).double()


def all_losses(rank: int = 0, count: int = 1) -> dict[str, Any]:
    """Everything at once, on every ``count``-th film."""
    image, target = films()[rank::count], maps()[rank::count]
    network = synchronized(normalizing())
    found: dict[str, Any] = {"features": network(image)}
    (found["features"] ** 3).mean().backward()
    found["gradients"] = [weight.grad for weight in network.parameters()]
    found["buffers"] = {name: buffer.clone() for name, buffer in network.named_buffers()}
    found["evaluated"] = network.eval()(image).detach()
    found["nll"] = SpatialNLLLoss(all_processes=True)(target.roll(1, 1), target)
    found["mse"] = HeatmapRegressionLoss(all_processes=True)(target.roll(1, 1), target)
    found["mean of means"] = SpatialNLLLoss()(target.roll(1, 1), target)
    torch.manual_seed(4)
    found["noise"] = drawn_for(image, torch.randn_like)
    objective = DDPMObjective(nn.Conv2d(3, 3, 1).double(), timesteps=10)
    objective.network.weight.data.fill_(0.1)
    torch.manual_seed(5)
    found["ddpm"] = objective(image)["loss"]
    torch.manual_seed(6)
    unet = EncoderLandmarkUNet(2, "test_efficientnet", decoder_channels=(8, 8, 8, 8, 8), dropout=0.5)
    found["dropped"] = unet.dropout(torch.ones(len(image), 16, 2, 2))
    return {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


def _a_share(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    assert (process_rank(), process_count()) == (rank, 2)
    found = all_losses(rank, 2)
    terms = {"loss": torch.tensor(float(rank)), "more": torch.tensor(2.0 + rank), "map": torch.ones(2)}
    engine: Any = SimpleNamespace(state=SimpleNamespace(output={"loss": torch.tensor(3.0 * rank), "pred": terms}))
    GlobalLossHandler()(engine)
    found["told"] = engine.state.output
    found["sum"] = sum_over_processes(torch.tensor([1, rank]))
    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found."""
    if sys.platform == "win32":
        pytest.skip("needs fork, which spares each process the imports")
    out = tmp_path_factory.mktemp("pair")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_a_share, args=(port, str(out)), nprocs=2, start_method="fork")
    return [torch.load(Path(out) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process finds with all films."""
    return all_losses()


def dealt(pair: list[dict[str, Any]], name: str) -> torch.Tensor:
    """Rows of both processes, in the order of the films."""
    return torch.stack([found[name] for found in pair], dim=1).flatten(0, 1)


@pytest.mark.parametrize("name", ["noise", "dropped"])
def test_draws_are_those_of_one_process(alone: dict[str, Any], pair: list[dict[str, Any]], name: str) -> None:
    assert torch.equal(dealt(pair, name), alone[name])
    assert not torch.equal(pair[0][name], pair[1][name])


@pytest.mark.parametrize("name", ["nll", "mse", "ddpm"])
def test_the_mean_of_losses_is_the_loss_of_all(alone: dict[str, Any], pair: list[dict[str, Any]], name: str) -> None:
    torch.testing.assert_close((pair[0][name] + pair[1][name]) / 2, alone[name], rtol=1e-6, atol=0)


def test_a_mean_of_means_would_not_be(alone: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    assert alone["mean of means"] == alone["nll"]
    off = (pair[0]["mean of means"] + pair[1]["mean of means"]) / 2 / alone["nll"] - 1
    assert abs(float(off)) > 1e-4


def test_normalization_is_over_the_films_of_both(alone: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(dealt(pair, "features"), alone["features"])
    torch.testing.assert_close(dealt(pair, "evaluated"), alone["evaluated"])
    for found in pair:
        torch.testing.assert_close(found["buffers"], alone["buffers"])
    averaged = [(one + other) / 2 for one, other in zip(*(found["gradients"] for found in pair), strict=True)]
    torch.testing.assert_close(averaged, alone["gradients"])


def test_every_process_tells_the_same_loss(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["told"]["loss"] == 1.5
        assert {name: float(found["told"]["pred"][name]) for name in ("loss", "more")} == {"loss": 0.5, "more": 2.5}
        assert found["told"]["pred"]["map"].tolist() == [1.0, 1.0]
        assert found["sum"].tolist() == [2, 1]


def test_alone_nothing_changes() -> None:
    network = normalizing()
    assert synchronized(network) is network and type(network[1]) is nn.BatchNorm2d
    assert (process_rank(), process_count()) == (0, 1)
    assert float(share_of_all(torch.tensor(0))) == 1.0 and float(share_of_all(torch.tensor(7))) == 7.0
    output = {"loss": torch.tensor(1.0), "pred": torch.zeros(3)}
    engine: Any = SimpleNamespace(state=SimpleNamespace(output=dict(output)))
    GlobalLossHandler()(engine)
    assert engine.state.output == output
