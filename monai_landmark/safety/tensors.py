"""Weights from elsewhere: what a file claims to hold, read from its header before memory is taken."""

from __future__ import annotations

import json
import pickle  # for the error that torch raises
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from monai_landmark.errors import WeightsError

__all__ = ["MOST_BYTES", "check_array", "check_torch_file", "check_weights", "refuse_inflated"]

MOST_BYTES = 8 << 30
_MOST_TENSORS = 100_000
_HEADER_BYTES = 16 << 20
_PICKLE_BYTES = 64 << 20
_ZIP = b"PK\x03\x04"  # how torch itself tells its format from the older one
_PROGRAM = "is no torch file that can be read without running it"
_CONVERT = "open it where you trust it and save a plain state dict, best as safetensors"


def check_weights(path: str | PathLike[str], name: str | None = None) -> dict[str, int]:
    """Look into a weights file without loading it.

    Of a torch file the parts, their sizes and the classes that its pickle names are read, and its tensors are mapped,
    not loaded, by ``torch.load(weights_only=True)``.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``.
        name: what errors call it; the path by default.

    Returns:
        How many ``tensors`` and ``bytes``.

    Raises:
        WeightsError: if it is damaged, larger than 8 GiB, claims more than it holds, or is anything but tensors.
    """
    path, name = Path(path), name or str(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        expected = f"at most {MOST_BYTES} bytes"
        raise WeightsError("is too large", file=name, value=size, expected=expected, action=_CONVERT)
    if path.suffix == ".safetensors":
        return {"tensors": _safetensors(path, name), "bytes": size}
    check_torch_file(path, name)
    try:
        # mapped, data costs no memory; the older format cannot be, but then its data need not be read at all
        content = torch.load(path, "cpu" if _is_zip(path) else "meta", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise WeightsError(_PROGRAM, file=name, value=_reason(error), action=_CONVERT) from error
    tensors = dict(_tensors(content, ""))
    if _is_zip(path):
        refuse_inflated(tensors, name)
    return {"tensors": len(tensors), "bytes": size}


def check_torch_file(path: str | PathLike[str], name: str | None = None) -> None:
    """Refuse a torch file that names classes beyond tensors, or unpacks to more than it is.

    Args:
        path: the file. One of the format before torch 1.6 is no archive and passes: ``weights_only=True`` guards it.
        name: what errors call it; the path by default.

    Raises:
        WeightsError: if it is refused.
    """
    name = name or str(path)
    if not _is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        _refuse_parts(members, Path(path).stat().st_size, name)
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except WeightsError:
        raise
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        problem = _PROGRAM if isinstance(error, pickle.UnpicklingError) else "is a damaged archive"
        raise WeightsError(problem, file=name, value=_reason(error), action=_CONVERT) from error
    if unsafe:
        problem = "is not opened: its pickle makes or calls more than tensors"
        raise WeightsError(problem, file=name, field="data.pkl", value=", ".join(sorted(unsafe)), action=_CONVERT)


def _reason(error: BaseException) -> str:
    """The first line of the first error; torch's own is a page of advice."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).strip().split("\n")[0]


def _is_zip(path: str | PathLike[str]) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) == _ZIP


def _refuse_parts(members: list[zipfile.ZipInfo], size: int, name: str) -> None:
    for member in members:
        folder, _, rest = member.filename.partition("/")
        if rest == "constants.pkl" or rest.startswith("code/"):
            raise WeightsError("is TorchScript, a program", file=name, field=member.filename, action=_CONVERT)
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            problem = "has a packed part, which can unpack to any size; torch stores plainly"
            raise WeightsError(problem, file=name, field=member.filename, value=member.file_size, action=_CONVERT)
        if ".." in member.filename.split("/") or not folder or "\\" in member.filename:
            raise WeightsError("has a part with a path", file=name, field=member.filename, action="do not use it")
        if rest == "data.pkl" and member.file_size > _PICKLE_BYTES:
            expected = f"at most {_PICKLE_BYTES} bytes"
            raise WeightsError(
                "has a huge pickle", file=name, field=rest, value=member.file_size, expected=expected, action=_CONVERT
            )
    if len(members) > _MOST_TENSORS or sum(member.file_size for member in members) > size:
        raise WeightsError("claims more than it holds", file=name, value=len(members), action="do not use it")


def _safetensors(path: Path, name: str) -> int:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_HEADER_BYTES, path.stat().st_size):
            expected = f"at most {_HEADER_BYTES} bytes, and within the file"
            problem, action = "has an impossible header", "get it again"
            raise WeightsError(problem, file=name, field="header", value=length, expected=expected, action=action)
        header = stream.read(length)
    try:
        json.loads(header, object_pairs_hook=_once)
        with safe_open(path, framework="pt") as file:  # holds every offset and shape against the size of the file
            names = list(file.keys())
            shapes = {each: file.get_slice(each).get_shape() for each in names[: _MOST_TENSORS + 1]}
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise WeightsError(
            "is no safetensors file, or claims more than it holds", file=name, value=str(error), action="get it again"
        ) from error
    for each, shape in shapes.items():
        if len(shape) > 8 or any(length >= 2**31 for length in shape) or len(each) > 512:
            raise WeightsError("has an impossible tensor", file=name, field=each, value=shape, action="do not use it")
    if len(names) > _MOST_TENSORS:
        raise WeightsError("has too many tensors", file=name, value=len(names), action="do not use it")
    return len(names)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a tensor is named twice")
    return found


def _tensors(content: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of nested mappings and lists."""
    if isinstance(content, torch.Tensor):
        yield name, content
    inner = content.items() if isinstance(content, Mapping) else enumerate(content) if _is_list(content) else ()
    for key, each in inner:
        yield from _tensors(each, f"{name}.{key}".removeprefix("."))


def _is_list(content: Any) -> bool:
    return isinstance(content, list | tuple)


def refuse_inflated(tensors: Mapping[str, torch.Tensor], file: str | PathLike[str]) -> None:
    """Refuse tensors that a few bytes claim to be huge: any computation would take the memory that they claim.

    Args:
        tensors: as they were loaded.
        file: named in the error.

    Raises:
        WeightsError: if one is not dense, or has more values than are stored.
    """
    for name, tensor in tensors.items():
        dense = tensor.layout == torch.strided and not tensor.is_quantized
        if not dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            expected = "a dense tensor with all of its values in the file"
            problem = "claims more values than it holds"
            value = tuple(tensor.shape)
            raise WeightsError(problem, file=file, field=name, value=value, expected=expected, action=_CONVERT)


def check_array(path: str | PathLike[str], name: str | None = None) -> None:
    """Look at the header of a ``.npy`` file.

    Args:
        path: the file.
        name: what errors call it; the path by default.

    Raises:
        WeightsError: if it holds Python objects, which are pickles, or claims more than the file has.
    """
    name = name or str(path)
    try:
        with open(path, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            rest = Path(path).stat().st_size - stream.tell()
    except (ValueError, OSError, EOFError) as error:
        raise WeightsError("is no array", file=name, value=str(error), action="do not use it") from error
    if dtype.hasobject:
        problem, value = "has Python objects, which are a pickle", str(dtype)
        raise WeightsError(problem, file=name, field="dtype", value=value, action=_CONVERT)
    count = 1
    for length in shape:
        count *= int(length)
    if count * dtype.itemsize != rest:
        raise WeightsError("claims more than it holds", file=name, field="shape", value=shape, action="get it again")
