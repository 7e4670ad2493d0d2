"""U-Net on a timm encoder: shapes, pretrained weights, tracing."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import EncoderLandmarkUNet

TINY = "test_efficientnet"
WIDTHS = (16, 16, 16, 8, 8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return EncoderLandmarkUNet(5, TINY, decoder_channels=WIDTHS).eval()


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (50, 70)])
def test_one_map_per_landmark_on_the_films_grid(network, size):
    with torch.no_grad():
        assert network(torch.randn(2, 1, *size)).shape == (2, 5, *size)


def test_encoder_with_four_levels():
    network = EncoderLandmarkUNet(3, "test_convnext", in_channels=1, decoder_channels=WIDTHS).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, 64, 96)).shape == (1, 3, 64, 96)


def test_too_few_decoder_levels_are_refused():
    with pytest.raises(ConfigurationError, match="decoder_channels"):
        EncoderLandmarkUNet(3, TINY, decoder_channels=(16, 8))


def test_gradients_reach_every_parameter(network):
    trained = EncoderLandmarkUNet(5, TINY, decoder_channels=WIDTHS)
    trained(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.parameters())


def test_trace_equals_eager(network):
    image, other = torch.randn(1, 1, 64, 64), torch.randn(2, 1, 96, 64)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        traced = torch.jit.trace(network, image, check_trace=False)
        torch.testing.assert_close(traced(other), network(other), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"), [({"pretrained": True}, True), ({"pretrained": False}, False), ({}, False)]
)
def test_pretrained_is_timms_own(monkeypatch, options, expected):
    asked = []
    create = timm.create_model

    def spy(name, **arguments):
        asked.append((name, arguments["pretrained"], arguments["in_chans"]))
        return create(name, **{**arguments, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", spy)
    EncoderLandmarkUNet(2, TINY, decoder_channels=WIDTHS, **options)
    assert asked == [(TINY, expected, 1)]


def test_a_weights_file_goes_before_timms(monkeypatch, tmp_path):
    source = timm.create_model(TINY, in_chans=3)
    torch.save(source.state_dict(), tmp_path / "encoder.pt")
    create, asked = timm.create_model, []
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: asked.append(k["pretrained"]) or create(*a, **k))
    network = EncoderLandmarkUNet(
        2, TINY, pretrained=True, weights_file=tmp_path / "encoder.pt", decoder_channels=WIDTHS
    )
    assert asked == [False]
    assert network.transfer_report.reinitialized == ()
    assert str(tmp_path / "encoder.pt") in str(network.transfer_report)
    assert torch.equal(network.encoder.conv_stem.weight, source.conv_stem.weight.sum(1, keepdim=True))


def test_no_file_no_report(network):
    assert network.transfer_report is None


def test_a_file_without_the_encoder_is_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="nothing was loaded"):
        EncoderLandmarkUNet(2, TINY, weights_file=tmp_path / "other.pt", decoder_channels=WIDTHS)


def test_a_file_of_encoder_and_decoder_fills_both(tmp_path):
    """What denoising pre-training leaves: all but the head, which predicted noise."""
    torch.manual_seed(5)
    source = EncoderLandmarkUNet(1)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network = EncoderLandmarkUNet(4, weights_file=tmp_path / "model.safetensors")
    assert set(network.transfer_report.reinitialized) == {"head.weight", "head.bias"}
    for name, tensor in network.state_dict().items():
        assert name.startswith("head.") or torch.equal(tensor, source.state_dict()[name])


def test_a_file_of_another_decoder_is_refused(tmp_path):
    save_file(EncoderLandmarkUNet(1, decoder_channels=(64, 48, 32, 24, 16)).state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="another encoder or decoder"):
        EncoderLandmarkUNet(4, weights_file=tmp_path / "m.safetensors")


def test_a_trained_landmark_network_goes_on_with_its_head(tmp_path):
    """To go on learning on a finer grid."""
    source = EncoderLandmarkUNet(4).eval()
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network = EncoderLandmarkUNet(4, weights_file=tmp_path / "model.safetensors").eval()
    assert network.transfer_report.reinitialized == ()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image), source(image))


def test_a_head_for_other_landmarks_starts_anew(tmp_path):
    save_file(EncoderLandmarkUNet(5).state_dict(), tmp_path / "model.safetensors")
    network = EncoderLandmarkUNet(4, weights_file=tmp_path / "model.safetensors")
    assert set(network.transfer_report.reinitialized) == {"head.weight", "head.bias"}
