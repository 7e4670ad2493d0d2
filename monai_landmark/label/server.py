"""Start MONAI Label with this package's app."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from monai_landmark.errors import ConfigurationError
from monai_landmark.label.guard import refuse_public_host
from monai_landmark.label.privacy import LOGGER, log_config
from monai_landmark.networks import model_card

__all__ = ["STAND_INS", "start_server", "write_app"]

#: Folder with modules that MONAI Label 0.8.5 imports at its start, and that this app never uses: pydicom_seg does not
#: load beside pydicom 3, and itk is 1.5 GB. It comes last on the path: where the true package is installed, that one is
#: taken.
STAND_INS = Path(__file__).with_name("stand_ins")


#: What a model's card may name -> the app that is served, a file of ``app_folder``.
_APPS = {"organs": "organs.py"}


def write_app(folder: Path, model_dir: Path | None = None) -> Path:
    """Write the app's folder, as ``monailabel start_server --app`` wants it.

    Args:
        folder: made when absent.
        model_dir: folder of the model, whose card says what it finds; without a card the app is that of landmarks.

    Returns:
        The folder.
    """
    card = {} if model_dir is None else model_card(model_dir)
    app = next((file for fact, file in _APPS.items() if fact in card), "landmarks.py")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("app_folder") / app, folder / "main.py")
    return folder


def start_server(studies: str, conf: Mapping[str, str], host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until interrupted.

    Args:
        studies: folder of films or scans, or address of a PACS's DICOMweb.
        conf: see :func:`monai_landmark.label.app.label_settings`; ``model_dir`` is required.
        host: address to listen on.
        port: likewise.

    Raises:
        ConfigurationError: if MONAI Label is not installed, the folder is absent, or the address is public without
            authentication.
    """
    refuse_public_host(host, os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true", "yes", "on"))
    if not studies.startswith(("http://", "https://")) and not Path(studies).is_dir():
        raise ConfigurationError(
            "no such folder", field="--studies", value=studies, expected="a folder of films or scans"
        )
    _offer_stand_ins()
    if importlib.util.find_spec("monailabel") is None:
        action = "run `make label`, and this command with .venv-label/bin/python"
        raise ConfigurationError("MONAI Label is not installed", field="label", action=action)
    model_dir = Path(conf["model_dir"]).absolute()
    folder = write_app(model_dir / "label_app", model_dir)
    import uvicorn
    from monailabel.main import Main

    words = ["start_server", "--app", str(folder), "--studies", _absolute(studies), "--host", host, "--port", str(port)]
    words += [word for key, value in conf.items() for word in ("--conf", key, value)]
    main = Main()
    main.start_server_init_settings(main.args_parser().parse_args(words))
    LOGGER.info("the server's addresses are listed at http://%s:%d/docs; films are reviewed at /review/", host, port)
    uvicorn.run("monailabel.app:app", host=host, port=port, log_config=log_config(), access_log=False)


def _absolute(studies: str) -> str:
    return studies if studies.startswith(("http://", "https://")) else str(Path(studies).resolve())


def _offer_stand_ins() -> None:
    """To this process and to those that it starts."""
    missing = [file.stem for file in STAND_INS.glob("*.py") if importlib.util.find_spec(file.stem) is None]
    if missing:
        sys.path.append(str(STAND_INS))
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*([inherited] if inherited else []), str(STAND_INS)])
