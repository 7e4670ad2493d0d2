"""Diffusion told an embedding: what is told changes the answer, what is withheld does not, and latents are scaled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_landmark.engines import PrecisionInferer
from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.diffusion import EmbeddingUNet, GenerationObjective, generation_objective
from monai_landmark.generation.latents import LatentCodec, film_autoencoder
from monai_landmark.generation.sampling import draw_films

UNET = {"channels": [8, 16], "norm_num_groups": 8, "width": 16}


def told_films(count: int = 6, tokens: int = 1, dim: int = 5) -> list[dict[str, Any]]:
    drawn = torch.Generator().manual_seed(0)
    return [{"source": 3 + 2 * torch.randn(tokens, dim, generator=drawn)} for _ in range(count)]


def objective(name: str = "flow", codec: LatentCodec | None = None, **options: Any) -> GenerationObjective:
    torch.manual_seed(0)
    built = generation_objective(name, told_films(), codec=codec, network=UNET, **options)
    with torch.no_grad():  # MONAI starts the last convolution at zero: the network would answer nothing
        for weight in built.network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return built


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, 1, 16, 16) * 2 - 1, torch.stack([film["source"] for film in told_films(count)])


def test_tokens_are_standardized_over_the_films() -> None:
    network, tokens = objective().network, torch.stack([film["source"] for film in told_films()])
    seen = (tokens - network.center) / network.spread
    torch.testing.assert_close(seen.mean(0), torch.zeros(1, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(1, 5))


def test_a_token_that_never_differs_is_left_as_it_is() -> None:
    network = EmbeddingUNet(1, 3, **{**UNET, "channels": [8, 16]})
    network.standardize(torch.full((4, 1, 3), 2.0))
    assert network.spread.tolist() == [[1.0, 1.0, 1.0]]


def test_the_answer_depends_on_the_embedding_of_its_own_film_alone() -> None:
    built, (image, tokens) = objective().eval(), batch()
    timesteps = torch.full((4,), 300.0)
    answer = built.predict(image, timesteps, tokens)
    changed = tokens.clone()
    changed[0] += 1
    other = built.predict(image, timesteps, changed)
    assert not torch.allclose(answer[0], other[0], atol=1e-4)
    torch.testing.assert_close(answer[1:], other[1:])


def test_withheld_is_what_none_is() -> None:
    built, (image, tokens) = objective(source_dropout=1.0).eval(), batch()
    timesteps = torch.full((4,), 300.0)
    hidden = built.withhold(tokens)
    assert hidden.isnan().all()
    torch.testing.assert_close(built.predict(image, timesteps, hidden), built.predict(image, timesteps, None))
    assert not torch.allclose(built.predict(image, timesteps, tokens), built.predict(image, timesteps, None), atol=1e-4)


def test_the_share_that_is_withheld() -> None:
    built = objective(source_dropout=0.3)
    hidden = built.withhold(torch.zeros(4000, 1, 5)).isnan().flatten(1)
    assert torch.equal(hidden.all(1), hidden.any(1))  # all of a film's tokens, or none
    assert 0.26 < float(hidden.all(1).float().mean()) < 0.34


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flow", {}),
        ("flow", {"timestep_sampling": "logit-normal"}),
        ("flow", {"prediction": "sample"}),
        ("ddpm", {}),
        ("ddpm", {"prediction": "v_prediction"}),
    ],
)
def test_every_weight_learns(name: str, options: dict[str, Any]) -> None:
    built, (image, tokens) = objective(name, source_dropout=0.5, **options), batch(8)
    built(image, tokens)["loss"].backward()
    silent = [n for n, w in built.named_parameters() if w.grad is None or not w.grad.abs().sum() > 0]
    # a single token takes all attention whatever it is asked, so what asks learns nothing
    assert all("attn2.to_q" in n or "attn2.to_k" in n or "norm2" in n for n in silent), silent


def test_films_without_their_embedding_are_refused() -> None:
    built, (image, tokens) = objective(), batch()
    for wrong in (None, tokens[:2], tokens[..., :3]):
        with pytest.raises(ConfigurationError, match="embedding of every film"):
            built(image, wrong)
    with pytest.raises(ConfigurationError, match="unknown objective"):
        generation_objective("gan", told_films())


def test_a_film_that_the_network_answers_has_the_velocity_towards_it() -> None:
    plain, (image, tokens) = objective().eval(), batch()
    film = generation_objective("flow", told_films(), network=UNET, prediction="sample").eval()
    film.network.load_state_dict(plain.network.state_dict())
    timesteps = torch.tensor([10.0, 200.0, 500.0, 1000.0])  # of 1000; at 10 the least noise counts
    answer, velocity = plain.predict(image, timesteps, tokens), film.predict(image, timesteps, tokens)
    share = torch.tensor([0.05, 0.2, 0.5, 1.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(velocity, (answer - image) / share)
    torch.testing.assert_close(film.clean(image, velocity, timesteps)[1:], answer[1:])
    with pytest.raises(ConfigurationError, match="unknown prediction"):
        generation_objective("flow", told_films(), network=UNET, prediction="epsilon")


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    torch.manual_seed(0)
    return LatentCodec(film_autoencoder(downsampling=2, latent_channels=3, width=8))


class TestLatents:
    def test_have_zero_mean_and_unit_deviation_after_fit(self, codec: LatentCodec) -> None:
        films = [{"image": torch.rand(1, 16, 16) * 2 - 1} for _ in range(5)]
        latents = codec.fit(films).encode(torch.stack([film["image"] for film in films]))
        assert latents.shape == (5, 3, 8, 8)
        torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)

    def test_decode_is_the_autoencoders_own(self, codec: LatentCodec) -> None:
        image = torch.rand(2, 1, 16, 16)
        torch.testing.assert_close(codec.decode(codec.encode(image)), codec.autoencoder.reconstruct(image))

    def test_are_noised_in_place_of_films_and_the_autoencoder_stays(self, codec: LatentCodec) -> None:
        built, (image, tokens) = objective(codec=codec), batch()
        assert built.encode(image).shape == (4, 3, 8, 8)
        built.train()(image, tokens)["loss"].backward()
        assert all(weight.grad is None and not weight.requires_grad for weight in codec.parameters())
        assert not codec.autoencoder.training

    @pytest.mark.parametrize("value", [0, 3, 32])
    def test_sizes_that_cannot_be(self, value: int) -> None:
        with pytest.raises(ConfigurationError, match="latent"):
            film_autoencoder(downsampling=value)


class TestDrawing:
    @pytest.mark.parametrize("name", ["flow", "ddpm"])
    def test_same_noise_same_film(self, name: str) -> None:
        built, (_, tokens) = objective(name).eval(), batch()
        noise = torch.randn(4, 1, 16, 16)
        drawn = [draw_films(built, tokens, noise, steps=3) for _ in range(2)]
        assert torch.equal(*drawn) and drawn[0].shape == (4, 1, 16, 16)
        assert float(drawn[0].abs().max()) <= 1
        assert not torch.equal(drawn[0], draw_films(built, tokens, noise.flip(0), steps=3))

    @pytest.mark.parametrize("name", ["flow", "ddpm"])
    def test_in_bfloat16(self, name: str) -> None:
        built, (_, tokens) = objective(name).eval(), batch()
        noise = torch.randn(4, 1, 16, 16)
        found = PrecisionInferer(dtype="bfloat16")(noise, lambda start: draw_films(built, tokens, start, steps=3))
        torch.testing.assert_close(found, draw_films(built, tokens, noise, steps=3), rtol=0, atol=0.1)

    def test_guidance_overdraws_the_embedding_and_zero_forgets_it(self) -> None:
        built, (_, tokens) = objective().eval(), batch()
        noise = torch.randn(4, 1, 16, 16)
        plain, strong = (draw_films(built, tokens, noise, 3, guidance) for guidance in (1.0, 4.0))
        none = [draw_films(built, told, noise, 3, 0.0) for told in (tokens, tokens + 5)]
        assert torch.equal(*none)
        assert float((strong - none[0]).abs().mean()) > float((plain - none[0]).abs().mean())

    @pytest.mark.parametrize("name", ["flow", "ddpm"])
    def test_a_weak_start_stays_near_its_film(self, name: str) -> None:
        built, (image, tokens) = objective(name).eval(), batch()
        noise = torch.randn(4, 1, 16, 16)
        near, far = (draw_films(built, tokens, noise, 20, 1.0, start=image, strength=share) for share in (0.05, 0.9))
        assert float((near - image).abs().mean()) < 0.5 * float((far - image).abs().mean())

    def test_latents_become_films(self, codec: LatentCodec) -> None:
        built, (_, tokens) = objective("ddpm", codec=codec).eval(), batch()
        assert draw_films(built, tokens, torch.randn(4, 3, 8, 8), 2).shape == (4, 1, 16, 16)
        assert not built.sampling_scheduler(2).clip_sample

    @pytest.mark.parametrize("strength", [0.0, 1.2])
    def test_no_such_strength(self, strength: float) -> None:
        built, (image, tokens) = objective().eval(), batch()
        with pytest.raises(ConfigurationError, match="strength"):
            draw_films(built, tokens, torch.randn(4, 1, 16, 16), 3, start=image, strength=strength)


def test_nothing_of_the_films_is_read_to_describe_a_model(tmp_path: Path) -> None:
    facts = objective("ddpm", prediction="v_prediction").describe()
    assert facts["objective"] == "ddpm" and facts["prediction"] == "v_prediction" and "latents" not in facts
    rebuilt = EmbeddingUNet(**facts["network"])
    rebuilt.load_state_dict(objective().network.state_dict())
