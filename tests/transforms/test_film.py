"""A film on the network's grid: not squashed, padded evenly, with a true affine."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_landmark.data.geometry import film_affine, mm_to_grid, spacing_of_affine
from monai_landmark.transforms import DecodeHeatmap, EncodeHeatmap, FitFilm, FitFilmd
from monai_landmark.transforms.film import FitFilmDict


def film(size, spacing=(0.1, 0.1), pixels=None):
    content = torch.rand(1, *size) if pixels is None else pixels
    return MetaTensor(content, affine=torch.from_numpy(film_affine(spacing)))


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (240, 30), (64, 48), (20, 10)])
@pytest.mark.parametrize("spacing", [(0.1, 0.1), (0.1, 0.2), (0.3, 0.1), None])
def test_aspect_is_kept_and_the_whole_film_shown(size, spacing):
    grid = (64, 48)
    fitted = FitFilm(grid)(film(size, spacing))
    assert fitted.shape == (1, *grid)
    row_mm, col_mm = spacing or (1.0, 1.0)
    extent = size[0] * row_mm, size[1] * col_mm
    step = max(extent[0] / grid[0], extent[1] / grid[1])
    steps = spacing_of_affine(fitted.affine)
    for measured, length in zip(steps, extent, strict=True):
        assert abs(measured - step) <= 0.51 * step * step / length + 1e-9  # the grid's whole pixels allow no better
    corners = torch.tensor([[-0.5, -0.5], [size[1] - 0.5, size[0] - 0.5]], dtype=torch.float64)
    shown = mm_to_grid(corners * torch.tensor([col_mm, row_mm]), fitted.affine)
    assert shown.min() >= -0.5 - 1e-4
    assert shown[1, 0] <= grid[1] - 0.5 + 1e-4 and shown[1, 1] <= grid[0] - 0.5 + 1e-4


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (240, 30), (64, 48)])
def test_covers_the_grid_and_cuts_off_evenly(size):
    grid = (64, 48)
    row, col = torch.meshgrid(*(torch.arange(float(side)) for side in size), indexing="ij")
    fitted = FitFilm(grid, cover=True)(film(size, (0.1, 0.1), torch.stack([row, col])))
    assert fitted.shape == (2, *grid)
    step = min(size[0] / grid[0], size[1] / grid[1])
    for axis, (values, length, side) in enumerate(zip(fitted.as_tensor(), size, grid, strict=True)):
        line = values[:, 0] if axis == 0 else values[0]
        assert line.mean().item() == pytest.approx((length - 1) / 2, abs=step)  # the middle stays in the middle
        assert (line[-1] - line[0]).item() == pytest.approx((side - 1) * step, rel=0.06)  # no padding


@pytest.mark.parametrize(("size", "axis"), [((100, 40), 0), ((40, 100), 1)])
def test_padding_is_even_and_repeats_the_edge(size, axis):
    pixels = torch.ones(1, *size)
    edge = [pixels[..., 0, :], pixels[..., -1, :]] if axis else [pixels[..., 0], pixels[..., -1]]
    edge[0][:], edge[1][:] = 2.0, 3.0
    fitted = FitFilm((50, 50))(film(size, pixels=pixels))
    line = fitted.as_tensor()[0, 25] if not axis else fitted.as_tensor()[0, :, 25]
    assert (line[:15] == line[0]).all() and (line[35:] == line[-1]).all()
    assert line[0] == pytest.approx(1.5) and line[-1] == pytest.approx(2.0)
    assert (line[16:34] == 1.0).all()


@pytest.mark.parametrize("size", [(200, 160), (96, 200), (131, 173)])
@pytest.mark.parametrize("spacing", [(0.1, 0.1), (0.1, 0.15)])
def test_the_affine_is_true_to_a_blob(size, spacing):
    generator = torch.Generator().manual_seed(0)
    shares = 0.3 + 0.4 * torch.rand(12, 2, generator=generator, dtype=torch.float64)
    points = shares * torch.tensor([size[1] - 1, size[0] - 1])
    fitted = FitFilm((64, 64))(film(size, spacing, EncodeHeatmap(6.0, size)(points)))
    expected = mm_to_grid(points * torch.tensor([spacing[1], spacing[0]]), fitted.affine)
    assert (DecodeHeatmap()(fitted) - expected).norm(dim=-1).max() < 0.1


def test_dictionary_form():
    item = {"image": film((30, 20)), "other": film((10, 20)), "id": "a"}
    fitted = FitFilmd(("image", "other"), (16, 16))(item)
    assert fitted["image"].shape == fitted["other"].shape == (1, 16, 16) and fitted["id"] == "a"
    assert item["image"].shape == (1, 30, 20)
    assert torch.equal(fitted["image"], FitFilm((16, 16))(item["image"]))
    with pytest.raises(KeyError):
        FitFilmd("absent", (16, 16))(item)
    assert FitFilmDict("absent", (16, 16), allow_missing_keys=True)(item).keys() == item.keys()
