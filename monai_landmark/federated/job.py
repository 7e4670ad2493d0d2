"""An NVFlare job for the bundle, and the model that comes out of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.fl_constant import WorkspaceConstants
from nvflare.app_common.decomposers import common_decomposers, numpy_decomposers
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_common.widgets.component_path_authorizer import CLASS_ALLOW_LIST
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.client.config import ExchangeFormat
from nvflare.fuel.utils import fobs
from nvflare.job_config.api import FedJob

from monai_landmark.engines import save_model
from monai_landmark.errors import WeightsError
from monai_landmark.files import write_text

__all__ = ["SAVED", "federated_job", "federated_model", "simulate"]

SAVED = "global_model.fobs"
"""Name of the file in the server's run folder that holds the weights of all sites together."""

_PATIENCE_S = 1800.0  # a site reads all its films before it says that it is there
_OF_A_SITE = ("films", "pseudo_films", "label_budget", "sources")
"""Facts of a site's model card that tell of its films, and do not go into the card of all; nor does ``shape``."""


def federated_job(
    name: str,
    stage: str,
    sites: int,
    rounds: int,
    local_epochs: int,
    films: str,
    output: str,
    bundle: str | PathLike[str],
    settings: Sequence[str] = (),
    python: str = "python3",
) -> FedJob:
    """Federated averaging (McMahan et al., AISTATS 2017) of the bundle's training at every site.

    The job holds values and no code: every site runs its own installed package and its own bundle.

    Args:
        name: of the job.
        stage: ``pretrain`` or ``train``.
        sites: how many take part; a round waits for all.
        rounds: how often weights go to the server and back.
        local_epochs: epochs of the bundle in a round.
        films: folder of the datalist at a site; ``{site}`` stands for its name.
        output: folder for what a site keeps, likewise.
        bundle: folder of the bundle at a site, likewise.
        settings: ``name=value`` of what one may change in the bundle's configuration.
        python: the interpreter at a site.

    Returns:
        The job, to be exported (``export_job``) or simulated (``simulator_run``).
    """
    words = [python, "-m", "monai_landmark.federated.client", stage, "--films", films, "--output", output]
    words += ["--bundle", str(bundle), "--local-epochs", str(local_epochs)]
    words += ["--settings", *settings, f"epochs={rounds * local_epochs}"]
    job = FedJob(name=name, min_clients=sites)
    # no persistor: the server has no network, only the arrays that come in
    job.to_server(FedAvg(num_clients=sites, num_rounds=rounds, persistor_id="", save_filename=SAVED))
    executor = ClientAPIExecutor(
        "external_process", words, launch_timeout=_PATIENCE_S, params_exchange_format=ExchangeFormat.NUMPY
    )
    job.to_clients(executor)
    return job


def simulate(job: FedJob, workspace: str | PathLike[str], sites: Sequence[str]) -> Path:
    """Run a job on this machine, every site in processes of its own.

    Args:
        job: see :func:`federated_job`.
        workspace: a new folder for what NVFlare writes.
        sites: their names.

    Returns:
        The file that the server saved.

    Raises:
        WeightsError: if it saved none.
    """
    local = Path(workspace) / WorkspaceConstants.SITE_FOLDER_NAME
    allowed = [*DEFAULT_CLASS_ALLOW_LIST, f"{ClientAPIExecutor.__module__}.{ClientAPIExecutor.__name__}"]
    write_text(local / WorkspaceConstants.DEFAULT_RESOURCES_CONFIG, json.dumps({CLASS_ALLOW_LIST: allowed}))
    job.simulator_run(str(workspace), clients=list(sites), threads=len(sites))
    found = sorted(Path(workspace).glob(f"server/**/{SAVED}"))
    if not found:
        raise WeightsError(
            "the sites have trained no model together",
            file=Path(workspace) / "server",
            expected=SAVED,
            action=f"read the logs in {workspace}",
        )
    return found[0]


def federated_model(saved: str | PathLike[str], site_model: str | PathLike[str], folder: str | PathLike[str]) -> None:
    """Make a model folder of what the server saved, for ``train --initialization``, ``evaluate`` and ``predict``.

    Args:
        saved: the server's :data:`SAVED`.
        site_model: what a site's bundle wrote in its output folder: says how the network is built.
        folder: where the model goes: weights, ``model.json`` and ``schema.yaml``.

    Raises:
        WeightsError: if the weights are not those of the site's network.
    """
    common_decomposers.register()
    fobs.register(numpy_decomposers.NumpyArrayDecomposer)
    arrays = fobs.loadf(str(saved)).params
    site_model, folder = Path(site_model), Path(folder)
    card: dict[str, Any] = json.loads((site_model / "model.json").read_text(encoding="utf-8"))
    expected = torch.load(site_model / "model.pt", weights_only=True)
    prefix = "" if expected.keys() <= arrays.keys() else "network."  # an objective keeps its network under this name
    try:
        weights = {
            name: torch.as_tensor(arrays[prefix + name]).to(like).view_as(like) for name, like in expected.items()
        }
    except (KeyError, RuntimeError) as error:
        raise WeightsError("weights of another network than the site's", file=saved, value=str(error)) from error
    kept = {name: None if name == "shape" else fact for name, fact in card.items() if name not in _OF_A_SITE}
    save_model(weights, folder, kept)
    if (schema := site_model / "schema.yaml").is_file():
        (folder / schema.name).write_bytes(schema.read_bytes())
