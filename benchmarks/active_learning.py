"""Which films to label next? The strategies of the MONAI Label app, played through on films whose labels are known.

    python benchmarks/active_learning.py --datalist runs/isbi2015/datalist.json --weights efficientnet-lite0.pth
    python benchmarks/active_learning.py ... --table          # what is finished, and docs/results/active_learning.json

From 5 films, drawn by the seed and the same for every strategy, to 25 in rounds of 5. Each round goes on from the
network of the one before; five films are chosen one by one, the features of those just chosen counted as labelled.
Films with a near-duplicate in the test section are not offered. Started again, finished rounds are passed over.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from records import add_records, record, summary
from workflow import run_bundle

from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.data.datalist import Datalist, load_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.files import write_text
from monai_landmark.label.strategies import STRATEGIES, next_film
from monai_landmark.metrics import paired_difference, summarize_errors
from monai_landmark.networks import frozen_features, landmark_network
from monai_landmark.results.evaluate import write_evaluation
from monai_landmark.study.frozen_films import FilmVectors

BUNDLE = "bundles/xray_landmarks"
BUDGETS = (5, 10, 15, 20, 25)
GRID, EPOCHS, VIEWS = (160, 128), 3, [[0, 1]]
FEATURE_GRID = (320, 256)


def main() -> None:
    """Play all strategies of the given seeds, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/active_learning"))
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    if not args.table:
        game = Game(args.datalist, args.weights, args.work)
        for seed in args.seeds:
            for strategy in STRATEGIES:
                game.play(strategy, seed)
    table(args.work, args.seeds)


class Game:
    """Films whose labels are uncovered one after another."""

    def __init__(self, datalist: Path, weights: Path, work: Path) -> None:
        self.datalist, self.weights, self.work = datalist, weights, work
        self.loaded: dict[str, Any] = {}  # films on the network's grid, which is the same in every round
        tested = {film["id"] for film in load_datalist(datalist, "test")}
        films = load_datalist(datalist, "training")
        self.films = {film["id"]: film for film in films if not tested & {*film.get("near_duplicates", [])}}
        self.schema = LandmarkSchema.load(str(Datalist.load(datalist).schema))

    @cache  # noqa: B019 - one game a process
    def vectors(self) -> Any:
        """From a film's id to its features, each computed once."""
        network = landmark_network(self.schema.count, "tf_efficientnet_lite0", self.weights)
        vector = FilmVectors(frozen_features(network), FEATURE_GRID)
        return cache(lambda film: vector(self.films[film]))

    def play(self, strategy: str, seed: int) -> None:
        """All rounds of one strategy."""
        order = np.random.default_rng(seed).permutation(sorted(self.films)).tolist()
        labeled, before = order[: BUDGETS[0]], None
        for budget in BUDGETS:
            first = budget == BUDGETS[0]  # the same network for all strategies
            folder = self.work / f"s{seed}" / ("start" if first else strategy) / str(budget)
            labeled = self._chosen(folder, labeled, budget, strategy, seed, before)
            if not (folder / "evaluation" / "metrics.json").is_file():
                self._train(folder, labeled, seed, before)
                self._measure(folder, "test", folder / "evaluation")
                print(f"{folder}: MRE {mean_error(folder):.3f} mm", flush=True)
            before = folder

    def _chosen(
        self, folder: Path, labeled: Sequence[str], budget: int, strategy: str, seed: int, before: Path | None
    ) -> list[str]:
        """The films of a round, kept in ``order.csv``."""
        file = folder / "order.csv"
        if not file.is_file():
            chosen = list(labeled)
            scores = self._scores(before) if before and strategy in ("highest_expected_error", "mixed") else {}
            rng = np.random.default_rng([seed, budget])
            while len(chosen) < budget:
                rest = [film for film in sorted(self.films) if film not in chosen]
                film = next_film(strategy, rest, chosen, scores, scores.__getitem__, self.vectors(), rng)
                chosen.append(str(film))
            write_text(file, "film,rank\n" + "".join(f"{film},{rank}\n" for rank, film in enumerate(chosen, start=1)))
        return list(pd.read_csv(file, dtype={"film": str})["film"])

    def _scores(self, model: Path) -> dict[str, float]:
        """Mean expected error of every film, as the server scores it."""
        predictor = self._predictor(model)
        return {name: float(np.nanmean(predictor(item).expected_error_mm)) for name, item in sorted(self.films.items())}

    def _train(self, folder: Path, labeled: Sequence[str], seed: int, before: Path | None) -> None:
        start = self.weights if before is None else before / "model" / "model.safetensors"
        files = {"datalist": str(self.datalist), "initialization": str(start), "label_order": str(folder / "order.csv")}
        keys = {"label_budget": len(labeled), "seed": seed, "spatial_size": list(GRID), "epochs": EPOCHS}
        run_bundle(Path(BUNDLE), "train", "train", "train", output_dir=str(folder / "model"), **files, **keys)

    def _predictor(self, folder: Path) -> LandmarkPredictor:
        """The network of a round; it reads no film that another one has read."""
        predictor = LandmarkPredictor(BUNDLE, folder / "model", calibration=None, views=VIEWS)
        read = predictor.preprocessing

        def load(item: dict[str, Any]) -> dict[str, Any]:
            if item["image"] not in self.loaded:
                self.loaded[item["image"]] = read(item)
            return dict(self.loaded[item["image"]])

        predictor.preprocessing = load
        return predictor

    def _measure(self, folder: Path, section: str, output: Path) -> None:
        predictor = self._predictor(folder)
        results = [predictor(item) for item in load_datalist(self.datalist, section)]
        write_evaluation(results, self.schema, predictor.card, self.datalist, section, output)


def errors(folder: Path) -> pd.DataFrame:
    """Films x landmarks in mm."""
    rows = pd.read_csv(folder / "evaluation" / "errors.csv", dtype={"film": str})
    return rows.pivot(index="film", columns="landmark", values="error_mm")


def mean_error(folder: Path) -> float:
    """MRE in mm."""
    return float(summarize_errors(errors(folder).to_numpy(), (2.0,))["mre_mm"])


def table(work: Path, seeds: Sequence[int]) -> None:
    """Print and record every budget of every strategy, and its gain over random by film."""
    found = []
    print("| labels | strategy | MRE mm | gain over random mm |\n| --- | --- | --- | --- |")
    for budget in BUDGETS:
        for strategy in ("start",) if budget == BUDGETS[0] else STRATEGIES:
            folders = {seed: work / f"s{seed}" / strategy / str(budget) for seed in seeds}
            folders = {s: folder for s, folder in folders.items() if (folder / "evaluation" / "metrics.json").is_file()}
            if not folders:
                continue
            values = [mean_error(folder) for folder in folders.values()]
            spread = f"{statistics.mean(values):.2f} ({min(values):.2f}-{max(values):.2f})"
            theirs = {seed: work / f"s{seed}" / "random" / str(budget) for seed in folders}
            gain = None
            if strategy not in ("start", "random") and all((one / "evaluation").is_dir() for one in theirs.values()):
                pair = [[errors(one[seed]).to_numpy() for seed in folders] for one in (theirs, folders)]
                gain = paired_difference(*pair)
            said = "" if gain is None else f"{gain.gain:.2f} ({gain.interval[0]:.2f} to {gain.interval[1]:.2f})"
            print(f"| {budget} | {strategy} | {spread} | {said} |")
            found += _records(budget, strategy, list(folders), values, gain)
    add_records(Path("docs/results/active_learning.json"), found)


def _records(budget: int, strategy: str, seeds: list[int], values: list[float], gain: Any) -> list[dict[str, Any]]:
    shared = {
        "n": 150,
        "seeds": seeds,
        "command": "python benchmarks/active_learning.py --datalist runs/isbi2015/datalist.json --weights WEIGHTS",
        "split": "from 001-150 without near-duplicates of the test films, test 151-300",
        "reader": "mean of senior and junior",
        "labels": budget,
        "near_duplicates": "kept in the test films, none among those that are labelled",
        "notes": f"{EPOCHS * 50} steps a round on {GRID[0]} x {GRID[1]}, one view, native pixels",
    }
    name = f"isbi2015/test1/{budget}/active_{strategy}/finetune"
    found = [record(f"{name}/mre_mm", unit="mm", **summary(values, 4), **shared)]
    if gain is not None:
        shared |= {"notes": shared["notes"] + "; random's error minus this one's, by film"}
        interval = [round(limit, 4) for limit in gain.interval]
        found.append(record(f"{name}/gain_mm", round(gain.gain, 4), "mm", interval=interval, **shared))
    return found


if __name__ == "__main__":
    main()
