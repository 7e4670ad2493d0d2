"""What one site runs in a federated job: the site's own bundle through MONAI's ``MonaiAlgo``, on its own films.

Once a round the weights come in, the bundle trains some epochs, and the weights and their number of steps go out.
NVFlare starts it at every site, with the words that the job gives:

    python -m monai_landmark.federated.client STAGE --films DIR --output DIR --bundle DIR --settings name=value ...
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nvflare.client as flare
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject
from monai.networks.utils import get_state_dict
from nvflare.app_common.abstract.fl_model import FLModel, MetaKey, ParamsType

from monai_landmark.errors import ConfigurationError
from monai_landmark.safety import open_config

__all__ = ["main", "round_of", "settings_of", "site_algorithm"]

_LOGGER = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> None:
    """Train whenever the server asks for it.

    Args:
        words: the command line. ``{site}`` in a folder is the name of this site.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["pretrain", "train"])
    parser.add_argument("--films", required=True, help="folder of the datalist")
    parser.add_argument("--output", required=True, help="where this site's own model, log and curves go")
    parser.add_argument("--bundle", required=True, help="folder of this site's bundle")
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument(
        "--settings", nargs="*", default=[], help="name=value, of what one may change in the bundle's configuration"
    )
    args = parser.parse_args(words)
    flare.init()
    site = flare.get_site_name()
    films, output, bundle = (str(folder).format(site=site) for folder in (args.films, args.output, args.bundle))
    settings = settings_of(args.settings, Path(bundle) / "configs" / f"{args.stage}.yaml")
    algorithm = site_algorithm(args.stage, films, output, bundle, args.local_epochs, settings)
    algorithm.initialize({ExtraItems.CLIENT_NAME: site})
    while flare.is_running():
        received = flare.receive()
        if received is not None:
            flare.send(round_of(algorithm, received))
    algorithm.finalize()


def settings_of(words: Sequence[str], config: Path) -> dict[str, Any]:
    """What a job asks of the bundle: values of names that the bundle lets one change, and never code.

    The bundle's own configuration is this site's, and is looked at as any that is opened here.

    Args:
        words: ``name=value``, the value in JSON or a plain word.
        config: the bundle's configuration.

    Returns:
        Names and values.

    Raises:
        ConfigurationError: if the configuration is refused, a name is none of its own, or a value would be evaluated.
    """
    known = open_config(config).get()
    settings = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        plain = isinstance(known.get(name), str | int | float | list | None) and name in known
        if not plain or _evaluated(value):
            raise ConfigurationError(
                "a job may set values of the bundle, not code",
                file=config,
                field=name,
                value=text,
                expected="a name at the top of the configuration, and a number, a word or a list of these",
            )
        settings[name] = value
    return settings


def _evaluated(value: Any) -> bool:
    """Whether MONAI would run it, or look something up by it."""
    if isinstance(value, list):
        return any(_evaluated(each) for each in value)
    return isinstance(value, dict) or (isinstance(value, str) and any(mark in value for mark in ("$", "@", "%", "::")))


def site_algorithm(
    stage: str, films: str, output: str, bundle: str, local_epochs: int, settings: dict[str, Any]
) -> MonaiAlgo:
    """MONAI's client for one site's bundle.

    Args:
        stage: ``pretrain`` or ``train``.
        films: folder of the datalist.
        output: where the site's own model goes.
        bundle: folder of the bundle.
        local_epochs: of a round; the setting ``epochs`` is that of the whole training, for its learning rate.
        settings: see :func:`settings_of`.

    Returns:
        The client, to be initialized.
    """
    own = {"dataset_dir": films, "output_dir": output, "resume": False}  # a round goes on from the server's weights
    return MonaiAlgo(
        bundle_root=bundle,
        local_epochs=local_epochs,
        send_weight_diff=False,
        config_train_filename=f"configs/{stage}.yaml",
        train_kwargs={**settings, **own},
        config_evaluate_filename=None,
    )


def round_of(algorithm: MonaiAlgo, received: FLModel) -> FLModel:
    """One round: train from the weights that came in.

    Args:
        algorithm: this site's.
        received: what the server sent. The first round brings no weights where none were there before: then all sites
            start from those that the bundle's seed or initialization gives, which are the same at every site.

    Returns:
        Weights, and how many steps they have taken. The server weighs the sites by that; it is the same for all, so
        that no site tells how many films it has.
    """
    weights = received.params or get_state_dict(algorithm.trainer.network)
    algorithm.train(ExchangeObject(weights=weights))
    done = algorithm.get_weights()
    arrays = {name: weight.numpy() for name, weight in done.weights.items()}
    steps = done.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]
    _LOGGER.info("round %s: %d steps", received.current_round, steps)
    return FLModel(params_type=ParamsType.FULL, params=arrays, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: steps})


if __name__ == "__main__":
    main()
