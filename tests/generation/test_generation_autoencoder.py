"""The autoencoder's terms: each weight learns from its own loss alone, and what comes back of films is measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.autoencoder import AutoencoderObjective, FilmPerceptualLoss, perceptual_loss
from monai_landmark.generation.embedding import FilmEmbedder
from monai_landmark.generation.latents import film_autoencoder
from monai_landmark.generation.reconstruction import reconstruction_quality


def objective(**options: float) -> AutoencoderObjective:
    torch.manual_seed(0)
    built = AutoencoderObjective(film_autoencoder(2, 3, 8), discriminator_width=8, discriminator_layers=1, **options)
    built.progress = 1.0
    return built


def films(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in module.parameters()]


def one_step(loss_of: tuple[str, ...], **options: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Gradients of autoencoder and discriminator when only some terms are minimized."""
    built = objective(**options)
    torch.manual_seed(2)
    terms = built(films())
    sum(built.weights.get(name, 1.0) * terms[name] for name in loss_of).backward()  # type: ignore[union-attr]
    assert built.discriminator is not None
    return gradients(built.network), gradients(built.discriminator)


def test_one_backward_pass_gives_each_the_gradient_of_its_own_loss() -> None:
    whole = one_step(("loss",))
    autoencoder, silent = one_step(("reconstruction", "kl", "adversarial"))
    idle, discriminator = one_step(("discriminator",))
    assert all(not grad.any() for grad in [*silent, *idle])
    for found, expected in zip(whole, (autoencoder, discriminator), strict=True):
        torch.testing.assert_close(found, expected)
    assert any(grad.any() for grad in discriminator)


def test_the_discriminator_moves_the_autoencoder() -> None:
    without, _ = one_step(("reconstruction", "kl"))
    with_it, _ = one_step(("reconstruction", "kl", "adversarial"))
    assert any(not torch.allclose(a, b) for a, b in zip(without, with_it, strict=True))


def test_the_discriminator_comes_in_late_or_never() -> None:
    built = objective(adversarial_start=0.5)
    built.progress = 0.4
    assert set(built(films())) == {"loss", "reconstruction", "kl"}
    built.progress = 0.5
    assert set(built(films())) == {"loss", "reconstruction", "kl", "adversarial", "discriminator"}
    assert objective(adversarial_weight=0.0).discriminator is None


def test_divergence_is_that_of_two_normals() -> None:
    built, image = objective(), films()
    mean, sigma = built.network.encode(image)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, sigma), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(built(image)["kl"], expected)


def test_perceptual_loss_is_zero_for_the_same_film_and_has_a_gradient() -> None:
    torch.manual_seed(0)
    loss = FilmPerceptualLoss(FilmEmbedder("mobilenetv3_small_050", "random", (32, 32)))
    image, other = films(), films().flip(-1).requires_grad_()
    assert float(loss(image, image)) == 0
    value = loss(other, image)
    value.backward()
    assert float(value) > 0 and other.grad is not None and other.grad.any()


def test_perceptual_loss_without_weights(tmp_path) -> None:
    assert perceptual_loss(None) is None
    with pytest.raises(ConfigurationError, match="needs the weights"):
        perceptual_loss("resnet50")
    with pytest.raises(ConfigurationError, match="run `embed` first"):
        perceptual_loss(tmp_path)
    with pytest.raises(ConfigurationError, match="class token"):
        FilmPerceptualLoss(FilmEmbedder("vit_tiny_patch16_224", "random", (32, 32)))


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of Wang et al. (2004): a Gaussian window of deviation 1.5 and 11 pixels, inside the border."""

    def mean(x: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5])

    first, second = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    top = (2 * mean(a) * mean(b) + first) * (2 * (mean(a * b) - mean(a) * mean(b)) + second)
    spread = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
    return float((top / ((mean(a) ** 2 + mean(b) ** 2 + first) * (spread + second))).mean())


def test_quality_is_that_of_the_formulas() -> None:
    image = films(3)
    back = (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(3))).clamp(-1, 1)
    found = reconstruction_quality(image, back)
    pairs = [(a[0].double().numpy(), b[0].double().numpy()) for a, b in zip(image, back, strict=True)]
    psnr = np.mean([10 * math.log10(2.0**2 / np.mean((a - b) ** 2)) for a, b in pairs])
    ssim = np.mean([similarity(a, b) for a, b in pairs])
    assert math.isclose(found["psnr_db"], psnr, rel_tol=1e-4) and math.isclose(found["ssim"], ssim, abs_tol=1e-3)
    assert math.isclose(found["error"], float((image - back).abs().mean()) / 2, rel_tol=1e-5)
