"""Mixed precision that really multiplies in bfloat16, and gives float32 back."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import DiffusionInferer, SimpleInferer, SlidingWindowInferer
from monai.networks.schedulers import DDPMScheduler
from torch import nn

from monai_landmark.engines import PrecisionInferer
from monai_landmark.engines.precision import fast_dtype
from monai_landmark.networks import DiffusionUNet


class Spy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.types = nn.Conv2d(1, 2, 3, padding=1), []

    def forward(self, x):
        out = self.conv(x)
        self.types.append(out.dtype)
        assert type(x) is torch.Tensor
        return out


@pytest.mark.parametrize("inferer", [None, SimpleInferer(), SlidingWindowInferer((8, 8))])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_runs_in_the_type_asked_for(inferer, name):
    network, image = Spy(), MetaTensor(torch.randn(2, 1, 8, 8))
    with torch.no_grad():
        out = PrecisionInferer(inferer, name)(image, network)
        assert out.dtype == torch.float32 and set(network.types) == {getattr(torch, name)}
        exact = network.conv(image.as_tensor())
    torch.testing.assert_close(out, exact, rtol=0, atol=1e-6 if name == "float32" else 0.05)
    if name == "bfloat16":
        assert not torch.equal(out, exact)


def test_auto_is_the_fast_type(monkeypatch):
    network, image = Spy(), torch.randn(1, 1, 8, 8)
    for fast in (torch.bfloat16, torch.float32):
        monkeypatch.setattr("monai_landmark.engines.precision.fast_dtype", lambda device, fast=fast: fast)
        PrecisionInferer()(image, network)
        assert network.types[-1] == fast


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(True, False, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_a_cpu_that_emulates_bfloat16_stays_with_float32(monkeypatch, avx512, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_dtype("cpu") == fast_dtype(torch.device("cpu")) == expected
    assert fast_dtype("meta") == torch.float32


def test_gradients_are_float32():
    network = Spy()
    PrecisionInferer(dtype="bfloat16")(torch.randn(1, 1, 8, 8), network).square().mean().backward()
    assert network.conv.weight.grad.dtype == torch.float32 and network.conv.weight.grad.abs().sum() > 0


class Depthwise(Spy):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 1, 1))


def test_grouped_convolutions_learn_in_float32():
    network, image, seen = Depthwise(), torch.randn(2, 1, 8, 8), []
    network.conv[1].weight.register_hook(lambda gradient: seen.append(gradient))
    for name in ("float32", "bfloat16"):
        network.zero_grad()
        PrecisionInferer(dtype=name)(image, network).square().mean().backward()
    assert network.types == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(*seen, rtol=0.1, atol=0.02)
    convolution = network.conv[1]
    with torch.no_grad():  # a single grouped convolution is exact: its input and weights were never rounded
        exact = convolution(image.expand(2, 4, 8, 8))
    found = PrecisionInferer(dtype="bfloat16")(image.expand(2, 4, 8, 8), convolution)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


def test_grouped_convolutions_predict_in_bfloat16():
    convolution, image = nn.Conv2d(4, 4, 3, groups=4), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert not torch.equal(PrecisionInferer(dtype="bfloat16")(image, convolution), convolution(image))


def test_around_the_diffusion_inferer():
    small = {"channels": (8, 8), "norm_num_groups": 8, "num_head_channels": 8, "num_res_blocks": 1}
    network, schedule = DiffusionUNet(**small).eval(), DDPMScheduler(10)
    image, noise, timesteps = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8), torch.tensor([1, 9])
    with torch.no_grad():
        out = PrecisionInferer(DiffusionInferer(schedule), "float32")(image, network, noise=noise, timesteps=timesteps)
        expected = network(schedule.add_noise(image, noise, timesteps), timesteps)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
