"""Films and labels where MONAI Label looks for them: in a folder, or in a PACS that speaks DICOMweb."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from cachetools import TTLCache, cached
from cachetools.keys import hashkey
from filelock import FileLock
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel

from monai_landmark.data.reader import FILM_SUFFIXES
from monai_landmark.errors import DataError, FilmError
from monai_landmark.files import write_text
from monai_landmark.label.checks import NotFoundError, RequestError, check_id, check_tag, new_id
from monai_landmark.label.labels import datalist_item, read_label, write_label
from monai_landmark.label.service import LabelService

__all__ = ["FilmFolder", "FilmPacs", "KeptLabels", "copy_whole", "plain_info"]

_SERIES_UID, _STUDY_UID = "0020000E", "0020000D"  # in DICOM's JSON
_SECONDS = 60  # for which the list of a PACS is believed


class KeptLabels:
    """What all stores do alike; comes before MONAI Label's own class.

    Attributes:
        suffixes: of images.
        label_suffixes: of labels that somebody put into the folder; the last one is that of labels kept here.
    """

    suffixes: Collection[str]
    label_suffixes: tuple[str, ...]
    _datastore: LocalDatastoreModel
    _datastore_path: str
    _datastore_config_path: str
    _lock_file: str
    _update_datastore_file: Callable[..., None]
    _init_from_datastore_file: Callable[..., None]
    get_image_uri: Callable[[str], str]

    def _change(self, change: Callable[[], None]) -> None:
        """Change the store's file; the processes of trainings and scorings change it too, so it is read anew first."""
        with FileLock(self._lock_file):
            file = Path(self._datastore_config_path)
            if file.is_file():
                text = file.read_text(encoding="utf-8")
                self._datastore = LocalDatastoreModel.model_validate_json(text)
                self._datastore.base_path = self._datastore_path
            change()
            self._update_datastore_file(lock=False)

    def _to_id(self, file: str) -> tuple[str, str]:
        """Id and suffix of a file's name."""
        for suffix in (*self.label_suffixes, *sorted(self.suffixes, key=len, reverse=True)):
            if file.lower().endswith(suffix):
                return file[: -len(suffix)], file[-len(suffix) :]
        return file, ""

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """The images of the folder, or the labels of a tag; MONAI Label would look for labels with images' suffixes."""
        label_folder = Path(self._datastore.label_path(None))
        suffixes = self.label_suffixes if Path(path).parent == label_folder else self.suffixes
        files = (file.name for file in Path(path).iterdir() if not file.name.startswith(".") and file.is_file())
        return {file: file for file in files if file.lower().endswith(tuple(suffixes))}

    def _object(self, film: str) -> ImageLabelModel:
        if film not in self._datastore.objects:
            raise NotFoundError("no such film", field="image", action="take an id from /datastore/?output=all")
        return self._datastore.objects[film]

    def film_path(self, film: str) -> Path:
        """The file of a film.

        Args:
            film: its id.

        Returns:
            Its path.

        Raises:
            NotFoundError: if there is none.
        """
        path = Path(self.get_image_uri(check_id(film)))
        if not path.is_file():
            raise NotFoundError("no such film", field="image", action="take an id from /datastore/?output=all")
        return path

    def _add(self, file: Path, suffix: str, image_info: Any) -> str:
        """Keep an image that a client sent, under an id of the server's own."""
        image = new_id()
        info = {**plain_info(image_info), "ts": int(time.time()), "name": image + suffix}

        def add() -> None:
            """Copy the image, then list it."""
            copy_whole(file, Path(self._datastore.image_path()) / f"{image}{suffix}")
            self._datastore.objects[image] = ImageLabelModel(image=DataModel(info=info, ext=suffix))

        self._change(add)
        return image

    def _keep(self, film: str, tag: str, info: dict[str, Any], write: Callable[[Path], Any]) -> None:
        suffix = self.label_suffixes[-1]
        file = Path(self._datastore.label_path(tag)) / f"{film}{suffix}"
        entry = DataModel(info={**info, "ts": int(time.time()), "name": file.name}, ext=suffix)

        def keep() -> None:
            """Write the file, then list it."""
            write(file)
            self._object(film).labels[tag] = entry

        self._change(keep)

    def json(self) -> dict[str, Any]:
        """All that is known of films and labels, what other processes wrote included."""
        self._init_from_datastore_file()
        known: dict[str, Any] = self._datastore.model_dump(exclude={"base_path"})
        return known

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label.

        Raises:
            NotFoundError: if there is none.
        """
        tag = check_tag(label_tag)

        def remove() -> None:
            """Take the label off the list, then off the disk."""
            label = self._object(check_id(label_id, "label")).labels.pop(tag, None)
            if label is None:
                raise NotFoundError("no such label", field="tag")
            (Path(self._datastore.label_path(tag)) / f"{label_id}{label.ext}").unlink(missing_ok=True)

        self._change(remove)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add facts about a film, such as its score."""
        self._change(lambda: self._object(image_id).image.info.update(plain_info(info)))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add facts about a label."""

        def update() -> None:
            """Put the facts beside those that are there."""
            label = self._object(label_id).labels.get(check_tag(label_tag))
            if label is None:
                raise NotFoundError("no such label", field="tag")
            label.info.update(plain_info(info))

        self._change(update)

    def remove_image(self, image_id: str) -> None:
        """Refused: films belong to whoever filled the folder."""
        raise RequestError("films are not removed over the network", field="image", action="remove the file itself")


class _FilmLabels(KeptLabels):
    """Labels of films: landmarks, kept as 3D Slicer markups."""

    service: LabelService
    suffixes = FILM_SUFFIXES
    label_suffixes = (".mrk.json", ".json")  # the last as 3D Slicer's module expects it

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Check a label and keep it as 3D Slicer markups.

        Args:
            image_id: the film.
            label_filename: what the client sent.
            label_tag: ``final`` for labels to train on, ``original`` for predictions.
            label_info: kept beside it.

        Returns:
            The label's id, which is the film's.

        Raises:
            RequestError: what is wrong with it.
        """
        shown = self.service.film(self.film_path(image_id))
        annotation = read_label(label_filename, image_id, shown, self.service.schema)
        self._keep(
            image_id, check_tag(label_tag), plain_info(label_info), lambda file: write_label(file, annotation, shown)
        )
        return image_id

    def save_prediction(self, film: str, markups: Path, tag: str, info: dict[str, Any]) -> None:
        """Keep a prediction as it is: it may reach beyond the film, which a label may not.

        Args:
            film: its id.
            markups: see :func:`monai_landmark.results.files.write_markups`.
            tag: of the label.
            info: kept beside it.
        """
        content = markups.read_text(encoding="utf-8")
        self._keep(film, check_tag(tag), info, lambda file: write_text(file, content))

    def training_items(self) -> list[dict[str, Any]]:
        """All films with a final label, as :func:`monai_landmark.label.labels.datalist_item` gives them.

        Raises:
            DataError: if a film or a label cannot be read.
        """
        folder = Path(self._datastore.label_path("final"))
        labels = {
            film: entry.labels["final"] for film, entry in self._datastore.objects.items() if "final" in entry.labels
        }
        service = self.service
        return [
            datalist_item(
                film, self.film_path(film), folder / f"{film}{label.ext}", service.schema, service.settings.spacing
            )
            for film, label in labels.items()
        ]


class FilmFolder(_FilmLabels, LocalDatastore):  # type: ignore[misc]  # monailabel is untyped
    """Films that lie in a folder, and their labels in its subfolder ``labels``.

    Args:
        service: reads films and knows the schema.
        folder: the films' folder.
        auto_reload: watch the folder for new films.
    """

    def __init__(self, service: LabelService, folder: str, auto_reload: bool = True) -> None:
        self.service = service
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in FILM_SUFFIXES], auto_reload=auto_reload)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Keep a film that a client sent, under an id of the server's own.

        Args:
            image_id: what the client calls it; not used, for it may name a patient.
            image_filename: what the client sent.
            image_info: kept beside it.

        Returns:
            The film's id.

        Raises:
            RequestError: if it is no film.
        """
        suffix = next((end for end in sorted(FILM_SUFFIXES, key=len, reverse=True) if image_filename.endswith(end)), "")
        if not suffix:
            raise RequestError("not a film", field="file", expected=f"a file ending in {' '.join(FILM_SUFFIXES)}")
        try:
            self.service.film(Path(image_filename))
        except DataError as error:
            raise RequestError(
                error.problem, field=error.field, expected=error.expected, action=error.action
            ) from error
        return self._add(Path(image_filename), suffix, image_info)


class FilmPacs(_FilmLabels, DICOMWebDatastore):  # type: ignore[misc]  # monailabel is untyped
    """Films in a PACS, a series each; they and their labels are kept in a cache of this machine.

    Args:
        service: reads films and knows the schema.
        client: DICOMweb client of the PACS.
        modalities: that are listed.
        cache_path: folder of the cache.
    """

    def __init__(self, service: LabelService, client: Any, modalities: tuple[str, ...], cache_path: str | None) -> None:
        self.service, self.modalities = service, modalities
        super().__init__(client, {}, cache_path, convert_to_nifti=False)

    @cached(cache=TTLCache(maxsize=16, ttl=_SECONDS), key=lambda self: hashkey(id(self)), lock=Lock())  # type: ignore[untyped-decorator, unused-ignore]
    def list_images(self) -> list[str]:
        """Ids of the series: their UIDs."""
        return list(self._series())

    def _series(self) -> dict[str, str]:
        """Series -> study. A PACS need not understand several modalities in one question."""
        found: dict[str, str] = {}
        for modality in self.modalities:
            for entry in self._client.search_for_series(search_filters={"Modality": modality}):
                series, study = (str(entry[tag]["Value"][0]) for tag in (_SERIES_UID, _STUDY_UID))
                found[series] = study
        return found

    def get_image_uri(self, image_id: str) -> str:
        """The film of a series, fetched where it is not in the cache yet.

        Raises:
            NotFoundError: if the PACS has no such series.
            FilmError: if the series holds several films.
        """
        file = Path(self._datastore.image_path()) / f"{check_id(image_id)}.dcm"
        if not file.is_file():
            study = self._series().get(image_id)
            if study is None:
                raise NotFoundError("no such film", field="image", action="take an id from /activelearning")
            films = self._client.retrieve_series(study, image_id)
            if len(films) != 1:
                problem = f"the series holds {len(films)} objects, and it is not known which one is meant"
                raise FilmError(problem, field="image", expected="a series of one film")
            with TemporaryDirectory(dir=file.parent) as folder:
                films[0].save_as(Path(folder) / "film.dcm", enforce_file_format=True)
                (Path(folder) / "film.dcm").replace(file)
        if image_id not in self._datastore.objects:
            info = {"ts": int(time.time()), "name": file.name}
            entry = ImageLabelModel(image=DataModel(info=info, ext=".dcm"))
            self._change(lambda: self._datastore.objects.setdefault(image_id, entry) and None)
        return str(file)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of a label in the cache."""
        return str(LocalDatastore.get_label_uri(self, label_id, label_tag))

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the series with a final label."""
        return list(LocalDatastore.get_labeled_images(self))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the series without a final label."""
        labeled = set(self.get_labeled_images())
        return [series for series in self.list_images() if series not in labeled]

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Films and final labels in the cache."""
        return list(LocalDatastore.datalist(self, full_path))

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused: films come from the PACS."""
        raise RequestError("films come from the PACS", field="file", action="send the film to the PACS")


def copy_whole(source: Path, file: Path) -> None:
    """Copy so that nobody sees half of it.

    Args:
        source: the file.
        file: its new place.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial-{file.name}")
    shutil.copyfile(source, partial)
    partial.replace(file)


def plain_info(info: Any) -> dict[str, Any]:
    """What a client wants kept beside a film or a label."""
    if not isinstance(info, dict):
        raise RequestError("not a JSON object", field="params", expected='JSON such as {"key": 1}')
    return info
