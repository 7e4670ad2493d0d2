"""The finished model and the state of a run, as files that a crash cannot spoil."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from ignite.engine import Engine, Events
from torch import nn

import monai_landmark
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.engines.randomness import DrawSampler
from monai_landmark.errors import WeightsError
from monai_landmark.files import file_sha256, left_behind, replace_file, write_text
from monai_landmark.manifest import write_manifest

__all__ = ["ModelSaver", "TrainingStateSaver", "save_model"]

_LOGGER = logging.getLogger(__name__)
_DIGEST = "sha256"


def _refuse_non_finite(weights: Mapping[str, Any]) -> None:
    bad = [n for n, tensor in weights.items() if isinstance(tensor, torch.Tensor) and not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(f"weights are not finite and were not saved: {bad[:3]}")


def save_model(
    network: nn.Module | Mapping[str, torch.Tensor], folder: str | PathLike[str], card: Mapping[str, Any]
) -> None:
    """Write ``model.pt`` (a plain state dict), ``model.safetensors`` and ``model.json``.

    Args:
        network: whose weights are saved, or the weights themselves.
        folder: made if absent.
        card: what a user of the weights must know (architecture, landmarks, grid ...); the hash of
            ``model.safetensors`` and the version are added.

    Raises:
        ValueError: if a weight is not finite; nothing is written then.
    """
    module = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    state = module.state_dict() if isinstance(module, nn.Module) else module
    # copies, for a layer may stand under two names, as DynUNet's do
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    _refuse_non_finite(weights)
    folder = Path(folder)
    with replace_file(folder / "model.pt") as stream:
        torch.save(weights, stream)
    with replace_file(folder / "model.safetensors") as stream:
        stream.write(safetensors.torch.save(weights))
    sha256 = file_sha256(folder / "model.safetensors")
    facts = {**card, "sha256": sha256, "version": monai_landmark.__version__}
    write_text(folder / "model.json", json.dumps(facts, indent=2))


class ModelSaver:
    """Handler that writes the finished model.

    Args:
        network: the network, or a function that returns it (for averaged weights that exist only later).
        folder: see :func:`save_model`.
        card: see :func:`save_model`.
        every_epoch: also after every epoch, so that a stopped run leaves a model.
        schema: written beside the model as ``schema.yaml``, so that the folder can move.
        inputs: files that went in, for ``run.json`` beside the model, see :func:`monai_landmark.manifest.run_manifest`.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module],
        folder: str | PathLike[str],
        card: Mapping[str, Any],
        every_epoch: bool = True,
        schema: LandmarkSchema | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        self.network, self.folder, self.card, self.every_epoch = network, Path(folder), card, every_epoch
        self.schema, self.inputs, self._told = schema, inputs, False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED if self.every_epoch else Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the model.

        Args:
            engine: the trainer; its step goes into the card.
        """
        network = self.network if isinstance(self.network, nn.Module) else self.network()
        save_model(network, self.folder, {**self.card, "steps": engine.state.iteration})
        if self.schema is not None:
            self.schema.to_yaml(self.folder / "schema.yaml")
        if not self._told:
            write_manifest(self.folder, self.inputs, [self.card["seed"]] if "seed" in self.card else [])
            self._told = True


class TrainingStateSaver:
    """Handler that keeps everything a stopped run needs to go on, and goes on from it.

    Wherever it stands among the handlers, it writes after all others of an epoch's end, so that what they change
    (schedule, average) is in the file. The file before it is kept as ``previous_...``: where the last one turns out to
    be damaged, the run says so and goes on from there. A run that the system ends (SIGTERM) says where its state is and
    leaves with exit code 143.

    Args:
        objects: names and things with ``state_dict`` and ``load_state_dict`` (network, optimizer, schedule, average).
        path: the checkpoint file.
        resume: load it at the start if it is there.
        save: write it; false in all but one process of distributed training.
    """

    def __init__(
        self, objects: Mapping[str, Any], path: str | PathLike[str], resume: bool = True, save: bool = True
    ) -> None:
        self.objects, self.path, self.resume, self.save = dict(objects), Path(path), resume, save
        self.previous = self.path.with_name(f"previous_{self.path.name}")
        self._saved = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self.load)
        if self.save:
            self.remove_left_behind()
            engine.add_event_handler(Events.STARTED, self._write_last)
            engine.add_event_handler(Events.STARTED, self._mind_the_system)

    def remove_left_behind(self) -> None:
        """Remove what a run that was killed while it wrote has left beside the checkpoint."""
        for file in left_behind(self.path):
            file.unlink(missing_ok=True)

    def _write_last(self, engine: Engine) -> None:
        if engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            engine.remove_event_handler(self, Events.EPOCH_COMPLETED)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _mind_the_system(self, engine: Engine) -> None:
        """Turn SIGTERM into an end that says where the run goes on."""
        if threading.current_thread() is not threading.main_thread():  # only there may a signal be caught
            return

        def leave(*_: Any) -> None:
            """Say what is kept, and end the process."""
            where = f"the same command goes on from step {self._saved}, kept in {self.path}"
            kept = where if self._saved else "no epoch was complete, so the same command starts anew"
            _LOGGER.warning("ended by the system (SIGTERM) in step %d; %s", engine.state.iteration, kept)
            raise SystemExit(128 + signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, leave)

        def end(_: Engine, error: BaseException | None = None) -> None:
            """Give SIGTERM back to whom it belonged, and pass an exception on."""
            signal.signal(signal.SIGTERM, before)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_room(error) from error  # whatever could not be written
            if error is not None:
                raise error

        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, end)

    def load(self, engine: Engine) -> None:
        """Go on from the checkpoint, if there is one.

        Args:
            engine: the trainer; its epoch and iteration are set.

        Raises:
            WeightsError: if the checkpoint is of another run, or both it and the one before are damaged.
        """
        state = self._read() if self.resume else None
        if state is None:
            return
        try:
            for name, thing in self.objects.items():
                thing.load_state_dict(state[name])
        except Exception as error:  # what does not fit is told in many ways
            raise self._unusable(error) from error
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        self._saved = engine.state.iteration
        sampler = getattr(engine.state.dataloader, "sampler", None)
        if isinstance(sampler, DrawSampler):
            sampler.start = state["epoch"] * sampler.draws

    def _read(self) -> dict[str, Any] | None:
        """The newest state that is whole; None where nothing was written yet."""
        files = [file for file in (self.path, self.previous) if file.is_file()]
        damage: Exception | None = None
        for file in files:
            try:
                state = _checked_state(file)
            except Exception as error:  # what a damaged file raises depends on where it is damaged
                damage = error
                continue
            if file == self.previous:
                what = "is missing" if damage is None else f"is damaged ({damage})"
                _LOGGER.warning("%s %s; going on from step %d of %s", self.path, what, state["iteration"], file)
            return state
        if damage is not None:
            raise self._unusable(damage) from damage
        return None

    def _unusable(self, error: Exception) -> WeightsError:
        return WeightsError(
            "the run cannot go on from this checkpoint",
            file=self.path,
            value=f"{type(error).__name__}: {error}",
            action="remove it, or choose another output folder, to start anew",
        )

    def __call__(self, engine: Engine) -> None:
        """Write the checkpoint.

        Args:
            engine: the trainer.

        Raises:
            ValueError: if a weight is not finite; the file stays as it was.
            WeightsError: if it cannot be written, e.g. to a full disk; the last one stays.
        """
        state: dict[str, Any] = {name: thing.state_dict() for name, thing in self.objects.items()}
        for content in state.values():
            _refuse_non_finite(content)
        state |= {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        try:
            with replace_file(self.path, keep=self.previous) as stream:
                torch.save({**state, _DIGEST: _digest(state)}, stream)
        except (OSError, RuntimeError) as error:  # torch's writer turns the first into the second
            raise self._no_room(error) from error
        self._saved = engine.state.iteration

    def _no_room(self, error: Exception) -> WeightsError:
        goes_on = f"goes on from step {self._saved}" if self._saved else "starts anew"
        return WeightsError(
            "the state of the run could not be written",
            file=self.path,
            value=f"{type(error).__name__}: {error}",
            action=f"make room; the same command {goes_on}",
        )


def _checked_state(file: Path) -> dict[str, Any]:
    """A checkpoint that is what was written, tensor for tensor."""
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    digest = state.pop(_DIGEST, None)
    if digest is not None and digest != _digest(state):  # None: written before there was one
        raise ValueError("its content is not what was written")
    return state


def _digest(content: Any) -> str:
    """SHA-256 of nested containers of tensors and numbers, the same on every device."""
    sha = hashlib.sha256()

    def add(value: Any) -> None:
        """One value, and what it holds."""
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            sha.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
            sha.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                sha.update(repr(key).encode())
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            sha.update(repr(value).encode())

    add(content)
    return sha.hexdigest()
