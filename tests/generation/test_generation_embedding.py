"""Embeddings: what a token is, where it is kept, and that films which are kept are not read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from monai_landmark.engines import save_model
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.generation.embedding import FilmEmbedder, embedded_films, film_embedder

CONVOLUTIONAL = "mobilenetv3_small_050"
TRANSFORMER = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def embedder() -> FilmEmbedder:
    torch.manual_seed(0)
    return FilmEmbedder(CONVOLUTIONAL, "random", (64, 64), patches=2)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(random.integers(0, 255, (40, 48), dtype=np.uint8)).save(folder / f"{name}.png")
    return [{"id": name, "image": str(folder / f"{name}.png")} for name in "abc"]


def test_the_global_token_is_the_mean_of_the_deepest_map_and_places_follow_row_by_row(embedder: FilmEmbedder) -> None:
    image = torch.rand(2, 1, 64, 64) * 2 - 1
    deepest = embedder.encoder((image - embedder.center) / embedder.spread)[-1]
    tokens = embedder(image)
    assert tokens.shape == (2, 5, embedder.token_dim) and deepest.shape[-2:] == (2, 2)
    torch.testing.assert_close(tokens[:, 0], deepest.mean((2, 3)))
    torch.testing.assert_close(tokens[:, 2], deepest[:, :, 0, 1])


def test_a_network_with_a_class_token_gives_it() -> None:
    torch.manual_seed(0)
    embedder = FilmEmbedder(TRANSFORMER, "random", (32, 48), patches=1)
    image = torch.rand(2, 1, 32, 48)
    features = embedder.encoder.forward_features((image - embedder.center) / embedder.spread)
    tokens = embedder(image)
    assert tokens.shape == (2, 2, 192) and features.shape[1] == 1 + 2 * 3
    torch.testing.assert_close(tokens[:, 0], features[:, 0])
    torch.testing.assert_close(tokens[:, 1], features[:, 1:].mean(1))


def test_films_are_told_to_a_network_as_its_own_training_told_pictures() -> None:
    facts = timm.get_pretrained_cfg(CONVOLUTIONAL)
    foreign = FilmEmbedder(CONVOLUTIONAL, "random", (32, 32))
    white = (1.0 - foreign.center) / foreign.spread  # a film's 1 is a picture's 1
    assert float(white) == pytest.approx((1 - sum(facts.mean) / 3) / (sum(facts.std) / 3), rel=1e-5)
    own = FilmEmbedder(CONVOLUTIONAL, "random", (32, 32), film_trained=True)
    assert float(own.center) == 0 and float(own.spread) == 1


def test_it_stays_frozen(embedder: FilmEmbedder) -> None:
    embedder.train()
    assert not any(module.training for module in embedder.modules())
    assert not any(weight.requires_grad for weight in embedder.parameters())


def test_from_a_folder_it_is_the_same_and_changed_weights_are_refused(embedder: FilmEmbedder, tmp_path: Path) -> None:
    save_model(embedder.encoder, tmp_path, embedder.describe())
    again = film_embedder(tmp_path)
    assert again.describe() == embedder.describe()
    assert film_embedder(tmp_path, patches=0).describe()["key"] != embedder.describe()["key"]
    torch.manual_seed(1)
    other = FilmEmbedder(CONVOLUTIONAL, "random", (64, 64))
    save_model(other.encoder, tmp_path / "other", other.describe())
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="not the weights"):
        film_embedder(tmp_path)


def test_neither_a_folder_nor_a_network(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="run `embed` first"):
        film_embedder(tmp_path / "nothing")


def test_films_are_read_once(
    embedder: FilmEmbedder, films: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "kept" / "embeddings.safetensors"
    first = embedded_films(films[:2], embedder, cache)
    calls: list[int] = []
    original = FilmEmbedder.forward
    monkeypatch.setattr(FilmEmbedder, "forward", lambda self, image: calls.append(len(image)) or original(self, image))
    second = embedded_films(films[::-1], embedder, cache)
    assert calls == [1]  # the third film alone
    assert [film["id"] for film in second] == ["c", "b", "a"]
    assert torch.equal(second[2]["source"], first[0]["source"]) and len(load_file(cache)) == 3
    assert "source" not in films[0]


def test_another_network_or_another_film_under_the_same_name_is_not_taken_from_the_cache(
    embedder: FilmEmbedder, films: list[dict[str, str]], tmp_path: Path
) -> None:
    cache = tmp_path / "embeddings.safetensors"
    path = tmp_path / "film.png"
    path.write_bytes(Path(films[0]["image"]).read_bytes())
    item = [{"id": "film", "image": str(path)}]
    before = embedded_films(item, embedder, cache)[0]["source"]
    path.write_bytes(Path(films[1]["image"]).read_bytes())
    after = embedded_films(item, embedder, cache)[0]["source"]
    assert not torch.equal(before, after)
    torch.manual_seed(5)
    other = FilmEmbedder(CONVOLUTIONAL, "random", (64, 64), patches=2)
    assert not torch.equal(embedded_films(item, other, cache)[0]["source"], after)
    assert len(load_file(cache)) == 3
