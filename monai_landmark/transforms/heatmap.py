"""Landmarks to heatmaps and back, both sub-pixel: the codec between points and what a network predicts.

Shapes: B batch, K landmarks, H rows, W columns. Points are (x, y) in grid pixels; (0, 0) is the center of the top-left
pixel.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from monai.transforms import Transform
from monai.utils import TransformBackends
from numpy.typing import NDArray

from monai_landmark.errors import ConfigurationError

__all__ = ["DecodeHeatmap", "DecodeMethod", "EncodeHeatmap"]

DecodeMethod = Literal["local_soft_argmax", "quadratic", "dark", "expectation", "argmax"]

_LOG_FLOOR = -30.0  # log of a value relative to the map's maximum; keeps logarithms of empty pixels finite
_MEAN_SHIFT_STEPS = 8  # started at the log-quadratic vertex, what is left to go shrinks by s^2 / (s^2 + t^2) a step


def _plain(values: torch.Tensor | NDArray[np.generic]) -> torch.Tensor:
    """The values as a tensor without MONAI's metadata, in float32, or float64 where they came so."""
    tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(values)
    tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name} must be positive", field=name, value=value, expected="a number above 0")
    return float(value)


class EncodeHeatmap(Transform):  # type: ignore[misc]
    """One Gaussian per landmark, centred on the sub-pixel point.

    The value at pixel (column c, row r) is ``exp(-((c - x)^2 + (r - y)^2) / (2 sigma_px^2))``, zero where either
    offset is longer than ``truncation * sigma_px``. The Gaussian is separable, so a map is one outer product.

    A landmark that is not annotated (NaN, or visibility 0) gives an all-zero map, which the losses ignore.
    A point outside the grid gives the part of its Gaussian that the grid still shows: all zero beyond the truncation.

    Args:
        sigma_px: standard deviation in grid pixels.
        spatial_size: (H, W) of the grid; may be left out here and given with each call.
        dtype: floating type of the maps.
        normalize: ``"peak"``: the continuous Gaussian has height 1, so the brightest pixel lies just below it;
            ``"sum"``: the pixels of every non-empty map add up to 1.
        truncation: half width of the support in multiples of ``sigma_px``.

    Raises:
        ConfigurationError: a setting is out of range, or no grid size was given.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's grammar)

    def __init__(
        self,
        sigma_px: float,
        spatial_size: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
        normalize: Literal["peak", "sum"] = "peak",
        truncation: float = 4.0,
    ) -> None:
        self.sigma_px = _positive("sigma_px", sigma_px)
        self.truncation = _positive("truncation", truncation)
        if not dtype.is_floating_point:
            raise ConfigurationError("a heatmap needs a floating type", field="dtype", value=dtype)
        if normalize not in ("peak", "sum"):
            raise ConfigurationError(
                "unknown normalization", field="normalize", value=normalize, expected="peak or sum"
            )
        self.spatial_size, self.dtype, self.normalize = spatial_size, dtype, normalize

    def __call__(
        self,
        points: torch.Tensor | NDArray[np.generic],
        visibility: torch.Tensor | NDArray[np.generic] | None = None,
        spatial_size: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """Draw the maps.

        Args:
            points: ``(K, 2)`` or ``(B, K, 2)`` (x, y) in grid pixels.
            visibility: ``(K,)`` or ``(B, K)`` codes; 0 means not annotated.
            spatial_size: (H, W), instead of the one given at construction.

        Returns:
            ``(K, H, W)`` or ``(B, K, H, W)`` plain tensor of ``dtype`` on the points' device.

        Raises:
            ValueError: points or visibility have another shape.
            ConfigurationError: the grid size is missing or not two positive integers.
        """
        centers = _plain(points)
        if centers.ndim not in (2, 3) or centers.shape[-1] != 2:
            raise ValueError(f"points must be (K, 2) or (B, K, 2), got {tuple(centers.shape)}")
        height, width = self._grid(spatial_size)
        if visibility is not None:
            seen = torch.as_tensor(visibility, device=centers.device)
            if seen.shape != centers.shape[:-1]:
                raise ValueError(f"visibility must be {tuple(centers.shape[:-1])}, got {tuple(seen.shape)}")
            centers = torch.where((seen != 0)[..., None], centers, torch.nan)
        # A point with one NaN coordinate is no point: spread it to both before the axes part.
        centers = torch.where(centers.isfinite().all(-1, keepdim=True), centers, torch.nan)
        columns, rows = self._profile(centers[..., 0], width), self._profile(centers[..., 1], height)
        return rows.to(self.dtype)[..., :, None] * columns.to(self.dtype)[..., None, :]

    def _grid(self, spatial_size: tuple[int, int] | None) -> tuple[int, int]:
        size = self.spatial_size if spatial_size is None else spatial_size
        if size is None or len(size) != 2 or any(int(n) != n or n < 1 for n in size):
            raise ConfigurationError(
                "the grid needs a size", field="spatial_size", value=size, expected="two positive integers (H, W)"
            )
        return int(size[0]), int(size[1])

    def _profile(self, center: torch.Tensor, size: int) -> torch.Tensor:
        """``(..., size)`` one-dimensional Gaussian around each center; zero where the center is NaN."""
        offset = torch.arange(size, dtype=center.dtype, device=center.device) - center[..., None]
        gaussian = torch.exp(-0.5 * (offset / self.sigma_px) ** 2)
        profile = torch.where(offset.abs() <= self.truncation * self.sigma_px, gaussian, 0.0)
        if self.normalize == "sum":
            profile = profile / profile.sum(-1, keepdim=True).clamp_min(torch.finfo(profile.dtype).tiny)
        return profile


class _Peaks(NamedTuple):
    """Flattened maps with the pixel of their maximum; every estimator starts from it."""

    values: torch.Tensor  # (..., H * W)
    size: tuple[int, int]
    row: torch.Tensor  # (...) integer
    col: torch.Tensor
    top: torch.Tensor  # (...) the maximum
    valid: torch.Tensor  # (...) False where there is no peak to find
    logits: bool

    @staticmethod
    def find(maps: torch.Tensor, logits: bool) -> _Peaks:
        """Find the maximum of each map.

        Args:
            maps: ``(..., H, W)``.
            logits: any finite map has a peak; otherwise only one with a positive value has.

        Returns:
            The peaks, with shapes ``(...)``.
        """
        height, width = maps.shape[-2], maps.shape[-1]
        values = maps.flatten(-2)
        top, index = values.max(-1)  # NaN anywhere makes the maximum NaN
        valid = top.isfinite() if logits else top.isfinite() & (top > 0) & values.amin(-1).isfinite()
        row = torch.div(index, width, rounding_mode="floor")
        top = torch.where(valid, top, 1.0)
        return _Peaks(values, (height, width), row, index - row * width, top, valid, logits)

    def gather(self, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
        """``(..., R, C)`` values where rows ``(..., R)`` cross columns ``(..., C)``, both clamped to the grid."""
        height, width = self.size
        index = rows.clamp(0, height - 1)[..., :, None] * width + cols.clamp(0, width - 1)[..., None, :]
        return self.values.gather(-1, index.flatten(-2)).reshape(index.shape)

    def log_weight(self, values: torch.Tensor) -> torch.Tensor:
        """Log of the values relative to the maximum, never below the floor."""
        top = self.top[..., None, None]
        if self.logits:
            return (values - top).clamp_min(_LOG_FLOOR)
        return (values / top).clamp_min(math.exp(_LOG_FLOOR)).log()

    def window(self, row: torch.Tensor, col: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights relative to the maximum in a square window, zero outside the grid, and the window's offsets."""
        offsets = torch.arange(-radius, radius + 1, device=row.device)
        rows, cols = row[..., None] + offsets, col[..., None] + offsets
        inside_rows, inside_cols = (rows >= 0) & (rows < self.size[0]), (cols >= 0) & (cols < self.size[1])
        values, top = self.gather(rows, cols), self.top[..., None, None]
        weight = torch.exp(values - top) if self.logits else values.clamp_min(0.0) / top
        inside = inside_rows[..., :, None] & inside_cols[..., None, :]
        return torch.where(inside, weight, 0.0), offsets.to(weight.dtype)

    def fits(self, radius: int) -> torch.Tensor:
        """``(..., 2)`` for (x, y): does a window of this radius around the peak lie on the grid along that axis?"""
        height, width = self.size
        fits_x = (self.col >= radius) & (self.col < width - radius)
        fits_y = (self.row >= radius) & (self.row < height - radius)
        return torch.stack((fits_x, fits_y), -1)

    def pixel(self) -> torch.Tensor:
        """``(..., 2)`` (x, y) of the maximum."""
        return torch.stack((self.col, self.row), -1).to(self.values.dtype)


def _vertex(logs: torch.Tensor) -> torch.Tensor:
    """Where the parabola through log values at -1, 0, 1 ``(..., 3)`` has its maximum; NaN when it has none."""
    left, middle, right = logs.unbind(-1)
    curvature = left - 2.0 * middle + right
    return torch.where(curvature < 0, 0.5 * (left - right) / torch.where(curvature < 0, curvature, -1.0), torch.nan)


def _quadratic(peaks: _Peaks) -> torch.Tensor:
    """Vertex of the parabola through three log values along each axis; exact for a Gaussian, at the border too.

    At the border the three pixels are the outermost ones, so the peak is the first of them instead of the middle one.
    """
    (height, width), steps = peaks.size, torch.arange(-1, 2, device=peaks.row.device)
    mid_row, mid_col = peaks.row.clamp(1, height - 2), peaks.col.clamp(1, width - 2)
    along_x = peaks.gather(peaks.row[..., None], mid_col[..., None] + steps)
    along_y = peaks.gather(mid_row[..., None] + steps, peaks.col[..., None])
    x = mid_col + _vertex(peaks.log_weight(along_x)[..., 0, :])
    y = mid_row + _vertex(peaks.log_weight(along_y)[..., :, 0])
    pixel, point = peaks.pixel(), torch.stack((x, y), -1)
    point = torch.where(point.isnan(), pixel, point)
    return torch.minimum(torch.maximum(point, pixel - 0.5), pixel + 0.5)


def _dark(peaks: _Peaks, smoothing_px: float) -> torch.Tensor:
    """Newton step on the log of the smoothed map, ``m - H^-1 g`` (Zhang et al., CVPR 2020, equations 6-9)."""
    reach = math.ceil(3.0 * smoothing_px)
    weight, offsets = peaks.window(peaks.row, peaks.col, reach + 1)
    taps = offsets - torch.arange(-1, 2, device=offsets.device)[:, None]  # (3, S): smoothed pixel, window pixel
    kernel = torch.exp(-0.5 * (taps / smoothing_px) ** 2) * (taps.abs() <= reach)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    # Products and sums instead of matmul: autocast would run that in half precision.
    smooth = (weight[..., None, :, :] * kernel[:, :, None]).sum(-2)  # (..., 3, S)
    smooth = (smooth[..., :, None, :] * kernel).sum(-1)  # (..., 3, 3)
    logs = smooth.clamp_min(math.exp(_LOG_FLOOR)).log()
    g_x, g_y = 0.5 * (logs[..., 1, 2] - logs[..., 1, 0]), 0.5 * (logs[..., 2, 1] - logs[..., 0, 1])
    h_xx = logs[..., 1, 2] - 2.0 * logs[..., 1, 1] + logs[..., 1, 0]
    h_yy = logs[..., 2, 1] - 2.0 * logs[..., 1, 1] + logs[..., 0, 1]
    h_xy = 0.25 * (logs[..., 2, 2] - logs[..., 2, 0] - logs[..., 0, 2] + logs[..., 0, 0])
    determinant = h_xx * h_yy - h_xy * h_xy
    is_peak = (determinant > 0) & (h_xx < 0)
    scale = torch.where(is_peak, determinant, 1.0)
    step = torch.stack((h_xy * g_y - h_yy * g_x, h_xy * g_x - h_xx * g_y), -1) / scale[..., None]
    point = peaks.pixel() + torch.where(is_peak[..., None], step, 0.0).clamp(-1.0, 1.0)
    return torch.where(peaks.fits(reach + 1), point, _quadratic(peaks))


def _local_soft_argmax(peaks: _Peaks, window_px: float) -> torch.Tensor:
    """Fixed point of the mean under a Gaussian window that moves with it (mean shift).

    The mean of a Gaussian of width s seen through a window of width t at c is ``(t^2 mu + s^2 c) / (s^2 + t^2)``: only
    the fixed point ``c = mu`` is unbiased, so a single step from the brightest pixel would pull toward that pixel.
    """
    radius = math.ceil(3.0 * window_px)
    weight, offsets = peaks.window(peaks.row, peaks.col, radius)
    pixel, start = peaks.pixel(), _quadratic(peaks)
    shift = start - pixel
    for _ in range(_MEAN_SHIFT_STEPS):
        see_x = torch.exp(-0.5 * ((offsets - shift[..., 0, None]) / window_px) ** 2)
        see_y = torch.exp(-0.5 * ((offsets - shift[..., 1, None]) / window_px) ** 2)
        seen = weight * see_y[..., :, None] * see_x[..., None, :]
        moments = torch.stack(((seen.sum(-2) * offsets).sum(-1), (seen.sum(-1) * offsets).sum(-1)), -1)
        shift = moments / seen.sum((-2, -1)).clamp_min(torch.finfo(seen.dtype).tiny)[..., None]
    return torch.where(peaks.fits(radius), pixel + shift, start)


def _expectation(peaks: _Peaks) -> torch.Tensor:
    """Mean position under the whole map."""
    height, width = peaks.size
    weight = torch.softmax(peaks.values, -1) if peaks.logits else peaks.values.clamp_min(0.0)
    weight = weight.reshape(*weight.shape[:-1], height, width)
    by_col, by_row = weight.sum(-2), weight.sum(-1)
    x = (by_col * torch.arange(width, device=weight.device)).sum(-1)
    y = (by_row * torch.arange(height, device=weight.device)).sum(-1)
    return torch.stack((x, y), -1) / by_col.sum(-1).clamp_min(torch.finfo(weight.dtype).tiny)[..., None]


class DecodeHeatmap(Transform):  # type: ignore[misc]
    """The sub-pixel point that a heatmap, or a map of logits, stands for.

    ========================  ===================================================================================
    ``"local_soft_argmax"``   mean under a Gaussian window that moves to its own mean; unbiased, uses many pixels
    ``"quadratic"``           parabola through three log values per axis; exact for a Gaussian, uses five pixels
    ``"dark"``                Newton step on the smoothed log map (Zhang et al., Distribution-aware coordinate
                              representation for human pose estimation, CVPR 2020)
    ``"expectation"``         mean position under the whole map (soft-argmax); pulled by anything else in the map,
                              and inward where the border cuts the peak
    ``"argmax"``              the brightest pixel
    ========================  ===================================================================================

    Where the window of ``"local_soft_argmax"`` or ``"dark"`` does not fit on the grid along an axis, that axis is
    decoded by ``"quadratic"``, because a peak cut by the border has a biased mean. All but ``"argmax"`` let
    gradients through. An all-zero or non-finite map has no point: NaN.

    Args:
        method: one of the names above.
        from_logits: the maps are logits of a soft-max over H x W, not heatmaps; -inf is then a pixel ruled out.
        window_px: standard deviation of the window of ``"local_soft_argmax"``.
        smoothing_px: standard deviation of the smoothing of ``"dark"`` (the paper takes that of the training target).
        confidence_radius_px: radius of the disc whose share of the mass is the confidence.

    Raises:
        ConfigurationError: an unknown method, or a width that is not positive.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's grammar)

    def __init__(
        self,
        method: DecodeMethod = "local_soft_argmax",
        from_logits: bool = False,
        window_px: float = 3.0,
        smoothing_px: float = 1.0,
        confidence_radius_px: float = 4.0,
    ) -> None:
        if method not in get_args(DecodeMethod):
            raise ConfigurationError(
                "unknown decoding method", field="method", value=method, expected=", ".join(get_args(DecodeMethod))
            )
        self.method, self.from_logits = method, from_logits
        self.window_px = _positive("window_px", window_px)
        self.smoothing_px = _positive("smoothing_px", smoothing_px)
        self.confidence_radius_px = _positive("confidence_radius_px", confidence_radius_px)

    def __call__(self, heatmap: torch.Tensor | NDArray[np.generic]) -> torch.Tensor:
        """Decode maps to points.

        Args:
            heatmap: ``(K, H, W)`` or ``(B, K, H, W)``, any floating type; H and W at least 3.

        Returns:
            ``(K, 2)`` or ``(B, K, 2)`` (x, y) in grid pixels, float32 (float64 for float64 maps); NaN without a peak.

        Raises:
            ValueError: the maps have another shape.
        """
        return self._points(self._peaks(heatmap))

    def decode_with_confidence(self, heatmap: torch.Tensor | NDArray[np.generic]) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode maps to points and say how much of each map's mass lies near its point.

        Args:
            heatmap: as for :meth:`__call__`.

        Returns:
            The points, and ``(K,)`` or ``(B, K)`` confidence in [0, 1]: the share of the map's mass (soft-max
            probability for logits) within ``confidence_radius_px`` of the point; 0 where there is no point.

        Raises:
            ValueError: the maps have another shape.
        """
        peaks = self._peaks(heatmap)
        points = self._points(peaks)
        center = torch.where(peaks.valid[..., None], points, 0.0).round().long()
        weight, offsets = peaks.window(center[..., 1], center[..., 0], math.ceil(self.confidence_radius_px) + 1)
        to_x, to_y = (offsets + (center - points)[..., axis, None] for axis in (0, 1))
        near = to_x[..., None, :] ** 2 + to_y[..., :, None] ** 2 <= self.confidence_radius_px**2
        if peaks.logits:
            total = torch.exp(torch.logsumexp(peaks.values, -1) - peaks.top)
        else:
            total = peaks.values.clamp_min(0.0).sum(-1) / peaks.top
        share = torch.where(near, weight, 0.0).sum((-2, -1)) / total
        return points, torch.where(peaks.valid, share.clamp(0.0, 1.0), 0.0)

    def _peaks(self, heatmap: torch.Tensor | NDArray[np.generic]) -> _Peaks:
        maps = _plain(heatmap)
        if maps.ndim not in (3, 4) or maps.shape[-1] < 3 or maps.shape[-2] < 3:
            raise ValueError(f"heatmaps must be (K, H, W) or (B, K, H, W) with H, W >= 3, got {tuple(maps.shape)}")
        return _Peaks.find(maps, self.from_logits)

    def _points(self, peaks: _Peaks) -> torch.Tensor:
        if self.method == "local_soft_argmax":
            points = _local_soft_argmax(peaks, self.window_px)
        elif self.method == "dark":
            points = _dark(peaks, self.smoothing_px)
        elif self.method == "quadratic":
            points = _quadratic(peaks)
        elif self.method == "expectation":
            points = _expectation(peaks)
        else:
            points = peaks.pixel()
        return torch.where(peaks.valid[..., None], points, torch.nan)
