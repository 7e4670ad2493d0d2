"""Frozen features on disk: computed once, then read; half precision, and a format that cannot execute anything."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from monai_landmark.errors import DataError
from monai_landmark.files import replace_file

__all__ = ["FeatureCache"]

_LOGGER = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]


class FeatureCache:
    """One file per film and view, named by a hash of all that its content depends on.

    float32 is kept as float16, any other type as it is; a fresh entry comes back in the same types as one from disk.
    Each file carries its full key and a hash of its values. A file that is damaged, or that another key or another
    program wrote, is not used: the log says so and the entry is made anew.

    Args:
        folder: where the files lie; made when absent. Several runs may share it.
        common: JSON facts that hold for every entry (weights, levels, timesteps, grid ...).
    """

    def __init__(self, folder: str | PathLike[str], common: Mapping[str, Any]) -> None:
        self.folder, self.common = Path(folder), dict(common)

    def path(self, entry: Mapping[str, Any]) -> Path:
        """File of an entry.

        Args:
            entry: JSON facts that tell the entry from the others of this cache (hash of the film, view ...).

        Returns:
            Its path, whether it exists or not.
        """
        return self.folder / f"{hashlib.sha256(self._key(entry).encode()).hexdigest()[:40]}.safetensors"

    def get(self, entry: Mapping[str, Any], make: Callable[[], Tensors]) -> Tensors:
        """An entry from disk, made and kept when it is not there.

        Args:
            entry: see :meth:`path`.
            make: computes the tensors.

        Returns:
            The tensors, float32 as float16.

        Raises:
            DataError: if a value does not fit float16.
        """
        path, key = self.path(entry), self._key(entry)
        if path.is_file():
            try:
                return _read(path, key)
            except (SafetensorError, OSError, ValueError) as error:
                _LOGGER.warning("%s cannot be used (%s); its features are made anew", path, error)
        tensors = {name: _compact(tensor) for name, tensor in make().items()}
        bad = [name for name, kept in tensors.items() if kept.dtype == torch.float16 and not kept.isfinite().all()]
        if bad:
            raise DataError(
                "features are not finite in half precision and were not kept",
                field=bad[0],
                expected=f"values within +-{torch.finfo(torch.float16).max:.0f}",
                action="check the pre-trained weights",
            )
        with replace_file(path) as stream:
            stream.write(safetensors.torch.save(tensors, metadata={"key": key, "sha256": _digest(tensors)}))
        return tensors

    def _key(self, entry: Mapping[str, Any]) -> str:
        if clash := self.common.keys() & entry.keys():
            raise ValueError(f"an entry may not overrule what holds for all: {sorted(clash)}")
        return json.dumps({**self.common, **entry}, sort_keys=True, allow_nan=False)


def _read(path: Path, key: str) -> Tensors:
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
        if told.get("key") != key:
            raise ValueError("it holds something else")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if told.get("sha256") != _digest(tensors):
        raise ValueError("its values have changed")
    return tensors


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.detach().cpu()
    return (plain.half() if plain.dtype == torch.float32 else plain).contiguous()


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
