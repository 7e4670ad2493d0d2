"""Views are turned back exactly: a network that only passes its input on must see through them."""

from __future__ import annotations

import pytest
import torch

from monai_landmark.engines import ViewInferer
from monai_landmark.engines.views import view_matrix
from monai_landmark.transforms import DecodeHeatmap, EncodeHeatmap

SIZE = (96, 64)
POINTS = torch.tensor([[20.3, 30.7], [41.9, 60.2], [30.0, 48.0]])


def _passes_on(image: torch.Tensor) -> torch.Tensor:
    """A "network" whose logits are the film: log of Gaussians at the landmarks."""
    return image


@pytest.fixture()
def film() -> torch.Tensor:
    return EncodeHeatmap(sigma_px=3.0, spatial_size=SIZE)(POINTS)[None].clamp_min(1e-6).log()


@pytest.mark.parametrize("view", [(0.0, 1.0), (5.0, 1.0), (-7.0, 1.0), (0.0, 1.08), (3.0, 0.93)])
def test_each_view_comes_back_to_the_point_it_left(film: torch.Tensor, view: tuple[float, float]) -> None:
    logits = ViewInferer([view])(film, _passes_on)
    found = DecodeHeatmap(from_logits=True)(logits)[0]
    assert (found - POINTS).norm(dim=-1).max() < 0.05


def test_without_the_inverse_the_points_would_have_moved(film: torch.Tensor) -> None:
    moved = ViewInferer([(5.0, 1.0)])
    turned = moved.inferer(_warped(film, view_matrix(5.0, 1.0, SIZE)), _passes_on)
    found = DecodeHeatmap(from_logits=True)(turned)[0]
    assert (found - POINTS).norm(dim=-1).max() > 1.0


def test_the_plain_view_is_the_network_itself(film: torch.Tensor) -> None:
    assert torch.equal(ViewInferer()(film, _passes_on), film)


def test_several_films_and_views_keep_their_places(film: torch.Tensor) -> None:
    films = torch.cat([film, film.flip(1)])
    logits = ViewInferer([(0, 1), (4, 1), (0, 1.05)])(films, _passes_on)
    found = DecodeHeatmap(from_logits=True)(logits)
    assert (found[0] - POINTS).norm(dim=-1).max() < 0.05
    assert (found[1] - POINTS.flip(0)).norm(dim=-1).max() < 0.05


def test_a_turn_keeps_angles_on_a_grid_that_is_not_square() -> None:
    matrix = view_matrix(30.0, 1.0, SIZE)[:2, :2]
    to_pixels = torch.diag(torch.tensor([SIZE[1] / 2.0, SIZE[0] / 2.0]))
    in_pixels = to_pixels @ matrix @ torch.linalg.inv(to_pixels)
    assert torch.allclose(in_pixels @ in_pixels.T, torch.eye(2), atol=1e-6)


def _warped(image: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    grid = torch.nn.functional.affine_grid(matrix[None, :2], list(image.shape), align_corners=False)
    return torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
