"""A light head on frozen features: which features, that they stay as they are, and that the head learns."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.losses import SpatialNLLLoss
from monai_landmark.networks import EncoderLandmarkUNet, FeatureTaps, LandmarkUNet
from monai_landmark.networks.feature_probe import FeatureHead, FeatureProbe, FrozenFeatures, default_levels, levels_of
from monai_landmark.networks.noise_levels import NoiseLevels
from monai_landmark.transforms import EncodeHeatmap

SMALL = {"channels": (8, 8, 16), "norm_num_groups": 8, "num_head_channels": 8}
DDPM = {"objective": "ddpm", "timesteps": 500, "schedule": "linear_beta"}
LEVELS = ("decoder_2", "bottleneck", "encoder_4")


def scrambled(network, seed=0):
    """All weights drawn anew, for the residual blocks of a new network end in zeros."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def unet(seed=0):
    return scrambled(LandmarkUNet(2, **SMALL), seed)


def encoder():
    torch.manual_seed(0)
    return EncoderLandmarkUNet(2, "test_efficientnet", decoder_channels=(16, 16, 16, 8, 8))


class TestFrozenFeatures:
    def test_levels_come_in_the_order_asked_for_with_their_sizes(self):
        features = FrozenFeatures(unet(), LEVELS)
        maps = features(torch.randn(3, 1, 16, 24))
        assert list(maps) == list(LEVELS) == list(features.channels)
        assert [tuple(m.shape) for m in maps.values()] == [(3, 8, 8, 12), (3, 16, 2, 3), (3, 8, 4, 6)]
        assert features.channels == {level: m.shape[1] for level, m in maps.items()} and features.reduction == 2

    def test_values_are_those_of_the_network_itself(self):
        network, image = unet().eval(), torch.randn(2, 1, 16, 16)
        with torch.no_grad(), FeatureTaps(network.diffusion, LEVELS) as taps:
            network.diffusion(image, torch.zeros(2, dtype=torch.long))
        expected = dict(taps.features)
        found = FrozenFeatures(network, LEVELS)(image)
        for level in LEVELS:
            torch.testing.assert_close(found[level], expected[level])

    @pytest.mark.parametrize("combine", ["concat", "mean"])
    def test_several_noise_levels(self, combine):
        network, image = unet(), torch.randn(2, 1, 16, 16)
        noise = NoiseLevels((20, 200), DDPM)
        joined = FrozenFeatures(network, LEVELS, noise, combine)(image)
        # one noise map per pass: the second alone is the second of two
        first, second = (
            FrozenFeatures(network, LEVELS, one)(image)
            for one in (NoiseLevels((20,), DDPM), NoiseLevels((20, 200), DDPM))
        )
        for level in LEVELS:
            width = first[level].shape[1]
            other = second[level][:, width:]
            expected = torch.cat([first[level], other], 1) if combine == "concat" else (first[level] + other) / 2
            torch.testing.assert_close(joined[level], expected)
            assert not torch.allclose(first[level], other)

    def test_nothing_is_trained_and_nothing_drifts(self):
        features = FrozenFeatures(encoder())
        before, image = copy.deepcopy(features.state_dict()), torch.randn(2, 1, 64, 64)
        features.train()
        maps = features(image)
        assert not features.training and not any(module.training for module in features.modules())
        assert not any(p.requires_grad for p in features.parameters()) and not any(
            m.requires_grad for m in maps.values()
        )
        assert all(torch.equal(value, before[name]) for name, value in features.state_dict().items()), (
            "batch statistics"
        )

    def test_a_film_does_not_depend_on_its_batch(self):
        features, images = FrozenFeatures(unet(), LEVELS, NoiseLevels((100,), DDPM)), torch.randn(3, 1, 16, 16)
        for level, maps in features(images).items():
            torch.testing.assert_close(features(images[1:2])[level], maps[1:2])

    def test_levels_of_an_encoder_are_timms(self):
        network, image = encoder().eval(), torch.randn(1, 1, 64, 64)
        features = FrozenFeatures(network)
        assert features.levels == ("encoder_2", "encoder_4", "encoder_8", "encoder_16", "encoder_32")
        with torch.no_grad():
            expected = network.encoder(image.to(memory_format=torch.channels_last))
        assert all(torch.equal(a, b) for a, b in zip(features(image).values(), expected, strict=True))

    def test_levels_of_an_encoders_decoder(self):
        network, seen = encoder().eval(), []
        hooks = [level.register_forward_hook(lambda *call: seen.append(call[-1])) for level in network.decoder]
        image = torch.randn(1, 1, 64, 64)
        with torch.no_grad():
            network(image)
        expected = seen[:]
        for hook in hooks:
            hook.remove()
        levels = [level for level in levels_of(network) if level.startswith("decoder_")]
        assert levels == ["decoder_16", "decoder_8", "decoder_4", "decoder_2", "decoder_1"]
        found = FrozenFeatures(network, levels)(image)
        assert all(torch.equal(found[level], maps) for level, maps in zip(levels, expected, strict=True))
        assert all(maps.shape[-1] == 64 // int(level.split("_")[1]) for level, maps in found.items())

    def test_a_decoder_counts_where_a_file_filled_it(self, tmp_path):
        torch.save(encoder().state_dict(), tmp_path / "whole.pt")
        torch.save(timm.create_model("test_efficientnet", in_chans=1).state_dict(), tmp_path / "encoder.pt")
        options = {"encoder": "test_efficientnet", "decoder_channels": (16, 16, 16, 8, 8)}
        whole = default_levels(EncoderLandmarkUNet(2, weights_file=tmp_path / "whole.pt", **options))
        part = default_levels(EncoderLandmarkUNet(2, weights_file=tmp_path / "encoder.pt", **options))
        assert "decoder_8" in whole and "decoder_1" not in whole
        assert part == tuple(level for level in whole if level.startswith("encoder_"))

    @pytest.mark.parametrize(
        ("options", "field"),
        [({"levels": ["encoder_3"]}, "levels"), ({"combine": "max"}, "combine")],
    )
    def test_what_there_is_not_is_refused(self, options, field):
        with pytest.raises(ConfigurationError, match=f"field: {field}"):
            FrozenFeatures(unet(), **options)

    def test_an_encoder_sees_no_noise(self):
        with pytest.raises(ConfigurationError, match="diffusion network"):
            FrozenFeatures(encoder(), noise=NoiseLevels((5,)))


class TestIdentity:
    def test_it_tells_weights_levels_and_noise_apart(self):
        others = [
            FrozenFeatures(unet(), LEVELS),
            FrozenFeatures(unet(1), LEVELS),
            FrozenFeatures(unet(), LEVELS[:2]),
            FrozenFeatures(unet(), LEVELS, NoiseLevels((5,))),
            FrozenFeatures(unet(), LEVELS, NoiseLevels((5,), DDPM)),
            FrozenFeatures(unet(), LEVELS, NoiseLevels((5,), {**DDPM, "beta_end": 0.03})),
            FrozenFeatures(unet(), LEVELS, NoiseLevels((5,), DDPM, seed=1)),
            FrozenFeatures(unet(), LEVELS, combine="mean"),
        ]
        identities = [str(features.identity()) for features in others]
        assert len(set(identities)) == len(others)
        assert str(FrozenFeatures(unet(), LEVELS).identity()) == identities[0]

    def test_the_last_layer_does_not_count(self):
        network = unet()
        before = FrozenFeatures(network, LEVELS).identity()
        torch.nn.init.normal_(network.diffusion.unet.out[2].conv.weight)
        assert FrozenFeatures(network, LEVELS).identity() == before
        network.diffusion.unet.conv_in.conv.weight.data[0, 0, 0, 0] += 1e-3
        assert FrozenFeatures(network, LEVELS).identity() != before


class TestFeatureHead:
    def test_one_map_per_landmark_on_the_grid_of_the_film(self):
        head = FeatureHead({"encoder_4": 5, "bottleneck": 7, "decoder_2": 3}, 6, reduction=2, width=16)
        features = {
            "encoder_4": torch.randn(2, 5, 4, 6),
            "bottleneck": torch.randn(2, 7, 2, 3).half(),
            "decoder_2": torch.randn(2, 3, 8, 12),
        }
        logits = head(features)
        assert logits.shape == (2, 6, 16, 24) and logits.dtype == torch.float32

    def test_levels_are_added_from_coarse_to_fine(self):
        head = FeatureHead({"fine": 3, "coarse": 3}, 2, reduction=1, width=8).eval()
        fine, coarse = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 4)
        enlarged = functional.interpolate(head.narrow["coarse"](coarse), size=(8, 8), mode="bilinear")
        expected = head.mix(enlarged + head.narrow["fine"](fine))
        torch.testing.assert_close(head({"coarse": coarse, "fine": fine}), expected)

    def test_the_scale_of_the_features_does_not_matter(self):
        torch.manual_seed(0)
        head = FeatureHead({"encoder_2": 4}, 2, reduction=2, width=8)
        maps = torch.randn(8, 4, 8, 8)
        torch.testing.assert_close(head({"encoder_2": maps}), head({"encoder_2": 50 * maps + 3}), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("size", ["tiny", "small", "base"])
    def test_it_is_light(self, size):
        probe = FeatureProbe(FrozenFeatures(LandmarkUNet(19, size=size)), 19)
        assert sum(weight.numel() for weight in probe.head.parameters()) < 300_000


class TestFeatureProbe:
    def test_only_the_head_learns_where_the_bright_spot_is(self):
        torch.manual_seed(0)
        points = torch.rand(8, 1, 2) * 20 + 6
        films = EncodeHeatmap(3.0, (32, 32))(points) * 2 - 1
        target = EncodeHeatmap(1.5, (32, 32))(points)
        probe = FeatureProbe(FrozenFeatures(unet(), ("encoder_2", "encoder_4", "decoder_2")), 1, width=16)
        before = copy.deepcopy(probe.features.state_dict())
        optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2)
        losses = []
        for _ in range(40):
            loss = SpatialNLLLoss()(probe.train()(films), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.75 * losses[0]
        assert all(torch.equal(value, before[name]) for name, value in probe.features.state_dict().items())
        assert {n.split(".")[0] for n, weight in probe.named_parameters() if weight.grad is not None} == {"head"}

    def test_a_state_dict_holds_all_of_it(self):
        probe, other = (FeatureProbe(FrozenFeatures(unet(seed), LEVELS), 2).eval() for seed in (0, 1))
        image = torch.randn(1, 1, 16, 16)
        assert not torch.allclose(probe(image), other(image))
        other.load_state_dict(probe.state_dict())
        torch.testing.assert_close(probe(image), other(image))
