"""The models of a server: the one that a folder came with, and one for every training since; none is overwritten."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from monai_landmark.errors import WeightsError
from monai_landmark.files import write_text

__all__ = ["ModelRounds"]

_WEIGHTS = "model.safetensors"


class ModelRounds:
    """The model in use, and those before it.

    ``rounds/current`` names the folder in use; without it the model is that of the folder itself. The file is replaced
    in one step, so that a server and its training processes always agree on a model that is complete.

    Args:
        folder: as ``train`` wrote it, or an empty one, where nothing is trained yet.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self._rounds = self.folder / "rounds"
        self._pointer = self._rounds / "current"

    def current(self) -> Path | None:
        """The folder of the model in use; None where nothing is trained yet.

        Raises:
            WeightsError: if ``rounds/current`` names no model.
        """
        if not self._pointer.is_file():
            return self.folder if (self.folder / _WEIGHTS).is_file() else None
        name = self._pointer.read_text(encoding="utf-8").strip()
        if not re.fullmatch(r"\d{4,}", name) or not (self._rounds / name / _WEIGHTS).is_file():
            action = "write the name of a folder beside it that holds model.safetensors, or remove it"
            raise WeightsError("names no model", file=self._pointer, value=name, action=action)
        return self._rounds / name

    def new(self) -> Path:
        """A new, empty folder for the next training."""
        self._rounds.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in self._rounds.iterdir() if path.name.isdigit()), default=0)
        while True:  # another process may have taken the number
            number += 1
            try:
                (folder := self._rounds / f"{number:04d}").mkdir()
            except FileExistsError:
                continue
            return folder

    def accept(self, folder: Path) -> None:
        """Use a model from now on.

        Args:
            folder: that :meth:`new` gave, with a finished model in it.

        Raises:
            WeightsError: if there is no model in it.
        """
        if folder.parent != self._rounds or not (folder / _WEIGHTS).is_file():
            raise WeightsError("no finished model", file=folder, expected=f"a folder of a round with {_WEIGHTS}")
        write_text(self._pointer, folder.name + "\n")
