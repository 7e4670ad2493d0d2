"""The diffusion U-Net as a landmark detector, and checkpoints of pre-training and of monai-generative in it."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler
from safetensors.torch import save_file

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import DiffusionUNet, FeatureTaps, LandmarkUNet
from monai_landmark.networks.diffusion_unet import SIZES

SMALL = {"channels": (8, 8, 16), "norm_num_groups": 8, "num_head_channels": 8, "num_res_blocks": 1}
CONDITIONED = {"with_conditioning": True, "cross_attention_dim": 5}
FINAL = {"unet.out.2.conv.weight", "unet.out.2.conv.bias"}


def scrambled(network, seed=0):
    """All weights drawn anew: the diffusion U-Net's own last layers start at zero and would hide differences."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


class TestDiffusionUNet:
    @pytest.mark.parametrize("patch_size", [1, 2, 4])
    @pytest.mark.parametrize("channels", [(1, 1), (1, 3), (2, 2)])
    def test_shapes(self, patch_size, channels):
        network = DiffusionUNet(*channels, patch_size=patch_size, **SMALL)
        with torch.no_grad():
            out = network(torch.randn(2, channels[0], 32, 48), torch.tensor([0, 9]))
        assert out.shape == (2, channels[1], 32, 48)

    def test_patches_are_folded_not_mixed_up(self):
        network = scrambled(DiffusionUNet(1, 1, patch_size=2, **SMALL))
        image, times = torch.randn(1, 1, 32, 32), torch.tensor([3])
        folded = torch.stack([image[0, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)])[None]
        with torch.no_grad():
            out, raw = network(image, times), network.unet(folded, times)
        for number, (i, j) in enumerate((i, j) for i in (0, 1) for j in (0, 1)):
            torch.testing.assert_close(out[0, 0, i::2, j::2], raw[0, number])

    @pytest.mark.parametrize("size", [(36, 32), (32, 30), (31, 31)])
    def test_a_grid_that_does_not_divide_is_refused(self, size):
        network = DiffusionUNet(**SMALL)
        assert network.divisor == 8
        with pytest.raises(ConfigurationError, match="multiples of 8"):
            network(torch.zeros(1, 1, *size), torch.zeros(1, dtype=torch.long))

    def test_an_unknown_size_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"tiny \| small \| base"):
            DiffusionUNet(size="huge")

    def test_class_labels_reach_the_network(self):
        network = scrambled(DiffusionUNet(num_class_embeds=3, **SMALL))
        image, times = torch.randn(2, 1, 32, 32), torch.tensor([3, 3])
        with torch.no_grad():
            first, second = (network(image, times, class_labels=torch.tensor([0, label])) for label in (0, 2))
        assert torch.equal(first[0], second[0])
        assert not torch.allclose(first[1], second[1])

    def test_attention_is_that_of_the_plain_formula(self):
        network = scrambled(DiffusionUNet(**SMALL))
        plain = DiffusionUNet(use_flash_attention=False, **SMALL).eval()
        plain.load_state_dict(network.state_dict())
        image, times = torch.randn(2, 1, 32, 48), torch.tensor([3, 9])
        with torch.no_grad():
            torch.testing.assert_close(network(image, times), plain(image, times), rtol=1e-4, atol=1e-5)

    def test_attention_only_where_the_map_is_small(self):
        """On the default 320 x 256 grid no map of more than 32 x 32 is attended to, in any size."""
        for size in SIZES:
            unet = DiffusionUNet(size=size).unet
            attended = [bool(len(getattr(block, "attentions", None) or ())) for block in unet.down_blocks]
            assert attended == [False, False, False, True]

    def test_checkpointing_changes_no_gradient(self):
        network = scrambled(DiffusionUNet(**SMALL)).train()
        saving = copy.deepcopy(DiffusionUNet(gradient_checkpointing=True, **SMALL)).train()
        saving.load_state_dict(network.state_dict())
        image, times = torch.randn(2, 1, 32, 32), torch.tensor([3, 9])
        for each in (network, saving):
            each(image, times).square().sum().backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(saving.get_parameter(name).grad, parameter.grad)

    def test_checkpointing_survives_a_copy(self):
        """The average of the weights is a deep copy: its blocks must be its own."""
        saving = scrambled(DiffusionUNet(gradient_checkpointing=True, **SMALL))
        average = copy.deepcopy(saving)
        image, times = torch.randn(1, 1, 32, 32), torch.tensor([3])
        with torch.no_grad():
            before = average(image, times)
            for parameter in saving.parameters():
                parameter.zero_()
            assert torch.equal(average(image, times), before)


class TestLandmarkUNet:
    def test_one_map_per_landmark(self):
        with torch.no_grad():
            assert LandmarkUNet(7, **SMALL)(torch.randn(2, 1, 32, 64)).shape == (2, 7, 32, 64)

    def test_the_timestep_is_told_to_the_network(self):
        network = scrambled(LandmarkUNet(2, timestep=5, **SMALL))
        image = torch.randn(1, 1, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(network(image), network.diffusion(image, torch.tensor([5])))
            assert not torch.allclose(network(image), network.diffusion(image, torch.tensor([0])))

    def test_a_conditioned_network_runs_on_the_film_alone(self):
        network = scrambled(LandmarkUNet(2, **SMALL, **CONDITIONED))
        image = torch.randn(2, 1, 32, 32)
        with torch.no_grad():
            expected = network.diffusion(image, torch.zeros(2, dtype=torch.long), torch.zeros(2, 1, 5))
            torch.testing.assert_close(network(image), expected)

    def test_trace_equals_eager(self):
        network = scrambled(LandmarkUNet(3, **SMALL))
        image, other = torch.randn(1, 1, 32, 48), torch.randn(2, 1, 32, 48)
        with torch.no_grad(), torch.jit.optimized_execution(False):
            traced = torch.jit.trace(network, image, check_trace=False)
            torch.testing.assert_close(traced(other), network(other), rtol=0, atol=1e-6)

    def test_gradients_reach_every_parameter_that_is_used(self):
        network = scrambled(LandmarkUNet(3, **SMALL)).train()
        network(torch.randn(1, 1, 32, 32)).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


class TestPretrained:
    def test_only_the_last_convolution_starts_anew(self, tmp_path):
        source = scrambled(DiffusionUNet(1, 1, **SMALL))
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        network = LandmarkUNet(6, weights_file=tmp_path / "model.safetensors", **SMALL)
        report = network.transfer_report
        assert set(report.reinitialized) == FINAL and report.ignored == ()
        assert set(report.loaded) == set(network.diffusion.state_dict()) - FINAL
        assert str(tmp_path) in str(report)
        features = {}
        for name, unet in (("source", source.unet), ("moved", network.diffusion.unet)):
            unet.out[1].register_forward_hook(lambda m, i, out, name=name: features.update({name: out}))
        with torch.no_grad():
            image = torch.randn(1, 1, 32, 32)
            source(image, torch.tensor([0]))
            network.eval()(image)
        assert torch.equal(features["source"], features["moved"])

    def test_even_of_the_same_shape_the_last_convolution_starts_anew(self):
        source = scrambled(DiffusionUNet(1, 1, **SMALL))
        network = LandmarkUNet(1, **SMALL)
        assert set(network.load_pretrained(source.state_dict()).reinitialized) == FINAL

    def test_training_goes_on_from_the_whole_of_a_landmark_network(self):
        source = scrambled(LandmarkUNet(4, **SMALL))
        same, other = LandmarkUNet(4, **SMALL), LandmarkUNet(5, **SMALL)
        assert same.load_pretrained(source.state_dict()).reinitialized == ()
        for name, tensor in source.state_dict().items():
            assert torch.equal(same.state_dict()[name], tensor)
        assert set(other.load_pretrained(source.state_dict()).reinitialized) == FINAL

    def test_names_of_monais_own_network(self):
        source = scrambled(DiffusionModelUNet(2, 1, 2, attention_levels=(False, False, True), **SMALL))
        network = LandmarkUNet(6, patch_size=1, **SMALL)
        report = network.load_pretrained(source.state_dict())
        assert set(report.reinitialized) == FINAL and report.ignored == ()

    @pytest.mark.parametrize(
        "options",
        [
            {"channels": (8, 16, 16)},
            {"num_res_blocks": 2},
            {"patch_size": 1},
            {"attention_levels": (False, True, True)},
            {"channels": (8, 8, 16, 16), "attention_levels": (False, False, True, False)},
        ],
        ids=["channels", "more blocks", "patch", "attention", "levels"],
    )
    def test_a_file_of_another_size_is_refused(self, tmp_path, options):
        save_file(DiffusionUNet(1, 1, **SMALL).state_dict(), tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match=r"another architecture or size|silently wrong") as caught:
            LandmarkUNet(6, weights_file=tmp_path / "model.safetensors", **{**SMALL, **options})
        assert "model.safetensors" in str(caught.value)

    def test_a_conditional_file_becomes_the_null_condition(self):
        """The landmark network gives what the conditional one gives when its source is withheld."""
        source = scrambled(DiffusionUNet(num_class_embeds=3, **SMALL))
        network = LandmarkUNet(4, timestep=7, **SMALL).eval()
        report = network.load_pretrained(source.state_dict(), "conditional")
        assert set(report.reinitialized) == FINAL and report.ignored == ()
        image, times = torch.randn(2, 1, 32, 32), torch.tensor([7, 7])
        with FeatureTaps(source, ["decoder_2"]) as theirs, torch.no_grad():
            source(image, times, class_labels=torch.tensor([0, 0]))
        with FeatureTaps(network.diffusion, ["decoder_2"]) as ours, torch.no_grad():
            network(image)
        torch.testing.assert_close(ours.features["decoder_2"], theirs.features["decoder_2"])

    def test_weights_of_something_else_are_refused(self):
        with pytest.raises(WeightsError):
            LandmarkUNet(6, **SMALL).load_pretrained(torch.nn.Linear(2, 2).state_dict())


def old_names(core):
    """State dict of MONAI core's network under the names that monai-generative gave it."""
    renamed = {}
    for name, tensor in core.state_dict().items():
        name = name.replace("postconv.", "conv.")
        if "transformer_blocks" in name:
            name = name.replace(".out_proj.", ".to_out.0.")
        else:
            name = name.replace(".attn.out_proj.", ".proj_attn.").replace(".attn.to_", ".to_")
        renamed[name] = tensor.clone()
    for name in [n for n in renamed if n.endswith(".to_k.weight") and "transformer_blocks" not in n]:
        block = name.removesuffix(".to_k.weight")  # defined there in every network, never applied
        renamed.setdefault(f"{block}.proj_attn.weight", torch.randn_like(renamed[name]))
        renamed.setdefault(f"{block}.proj_attn.bias", torch.randn(len(renamed[name])))
    return renamed


KINDS = {
    "attention at the last level": {"attention_levels": (False, False, True)},
    "attention in the middle alone": {"attention_levels": (False, False, False)},
    "blocks that resample": {"attention_levels": (False, True, True), "resblock_updown": True},
    "conditioned": {"attention_levels": (False, False, True), **CONDITIONED},
}
FITTING = [(kind, kind == "conditioned") for kind in KINDS]


class TestOldNames:
    """Without the old package: a core network renamed by hand."""

    @pytest.mark.parametrize(("kind", "include_fc"), FITTING)
    @pytest.mark.parametrize("out_channels", [1, 3])
    def test_numbers_are_those_of_the_source(self, kind, include_fc, out_channels):
        options = {**SMALL, **KINDS[kind], "include_fc": include_fc}
        source = scrambled(DiffusionModelUNet(2, 1, out_channels, **options))
        weights = old_names(source)
        assert any(name not in source.state_dict() for name in weights)
        given = dict(weights)
        network = LandmarkUNet(4, patch_size=1, **options).eval()
        report = network.load_pretrained(weights, "old.pt")
        assert set(report.reinitialized) == FINAL and report.ignored == () and report.source == "old.pt"
        assert list(weights) == list(given) and all(weights[name] is given[name] for name in given)
        network.diffusion.unet.out[2] = source.out[2]
        context = torch.randn(2, 4, 5) if kind == "conditioned" else None
        image, times = torch.randn(2, 1, 16, 24), torch.tensor([3, 70])
        with torch.no_grad():
            # attention that never holds its matrix rounds otherwise
            torch.testing.assert_close(
                network.diffusion(image, times, context), source(image, times, context), rtol=1e-5, atol=1e-6
            )

    @pytest.mark.parametrize(("kind", "include_fc"), FITTING)
    def test_the_other_include_fc_is_refused(self, kind, include_fc):
        options = {**SMALL, **KINDS[kind]}
        weights = old_names(DiffusionModelUNet(2, 1, 1, include_fc=include_fc, **options))
        with pytest.raises(WeightsError, match="include_fc"):
            LandmarkUNet(4, patch_size=1, include_fc=not include_fc, **options).load_pretrained(weights)

    @pytest.mark.parametrize(
        "other",
        [
            {"num_res_blocks": 2},
            {"channels": (8, 16, 16)},
            {"patch_size": 2},
            {"attention_levels": (True, False, True)},
        ],
        ids=["more blocks", "channels", "patch", "attention"],
    )
    def test_another_architecture_is_refused(self, other):
        options = {**SMALL, "attention_levels": (False, False, True), "include_fc": False, "patch_size": 1}
        weights = old_names(LandmarkUNet(1, **options).diffusion.unet)
        with pytest.raises(WeightsError, match="another architecture or size"):
            LandmarkUNet(4, **{**options, **other}).load_pretrained(weights)

    def test_fewer_blocks_than_the_checkpoint_are_refused(self):
        options = {**SMALL, "include_fc": False, "patch_size": 1}
        weights = old_names(LandmarkUNet(1, **{**options, "num_res_blocks": 2}).diffusion.unet)
        with pytest.raises(WeightsError, match="another architecture or size"):
            LandmarkUNet(4, **options).load_pretrained(weights)


@pytest.fixture(scope="module")
def old_network():
    """The network class of monai-generative, which looks for a name where MONAI no longer has it."""
    pytest.importorskip("generative", reason="install the extra [generative] to compare with monai-generative")
    import monai.config
    from monai.utils import IgniteInfo

    monai.config.IgniteInfo = IgniteInfo
    from generative.networks.nets import DiffusionModelUNet as OldNetwork

    return OldNetwork


def trained_to_denoise(network, context):
    """Ten steps of DDPM training, so that the weights are an optimizer's and not a generator's."""
    optimizer, losses = torch.optim.AdamW(network.parameters(), 1e-3), []
    films, noise, times = torch.randn(2, 1, 16, 24).cumsum(-1) / 5, torch.randn(2, 1, 16, 24), torch.tensor([20, 50])
    noisy = DDPMScheduler(100).add_noise(films, noise, times)
    for _ in range(10):
        losses.append((network(noisy, times, context) - noise).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    return network.eval()


class TestMonaiGenerative:
    """Numbers of the old package itself."""

    @pytest.mark.parametrize(("kind", "include_fc"), FITTING)
    @pytest.mark.parametrize("out_channels", [1, 2])
    def test_numbers_are_those_of_the_old_package(self, old_network, tmp_path, kind, include_fc, out_channels):
        options = {**SMALL, **KINDS[kind]}
        channels = options.pop("channels")
        context = torch.randn(2, 4, 5) if kind == "conditioned" else None
        source = trained_to_denoise(
            scrambled(old_network(2, 1, out_channels, num_channels=channels, **options)), context
        )
        torch.save(source.state_dict(), tmp_path / "old.pt")
        network = LandmarkUNet(
            4, weights_file=tmp_path / "old.pt", patch_size=1, channels=channels, include_fc=include_fc, **options
        ).eval()
        assert set(network.transfer_report.reinitialized) == FINAL
        network.diffusion.unet.out[2] = source.out[2]
        image, times = torch.randn(2, 1, 16, 24), torch.tensor([3, 70])
        with torch.no_grad():
            new, old = network.diffusion(image, times, context), source(image, times, context)
        assert old.abs().mean() > 0.01
        assert (new - old).abs().max() < 1e-5

    @pytest.mark.parametrize(("kind", "include_fc"), FITTING)
    def test_the_other_include_fc_is_refused_and_the_dict_stays(self, old_network, kind, include_fc):
        options = {**SMALL, **KINDS[kind]}
        channels = options.pop("channels")
        weights = old_network(2, 1, 1, num_channels=channels, **options).state_dict()
        names = list(weights)
        network = LandmarkUNet(4, patch_size=1, channels=channels, include_fc=not include_fc, **options)
        with pytest.raises(WeightsError, match="include_fc"):
            network.load_pretrained(weights)
        assert list(weights) == names
