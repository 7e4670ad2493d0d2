"""Lungs by a diffusion model that was never shown a mask: from points set once, and from one reference mask.

    python benchmarks/generation_lungs.py --datalist runs/chest6/datalist.json --masks DIR/masks \
        --model runs/flow/model.safetensors --json docs/results/generation.json

All films are brought onto the mean of ``--unlabelled`` films of the training section by the network's features. Without
a label: :data:`INSIDE` and :data:`OUTSIDE`, set by eye once on the mean film, say what a lung is (the masks count the
region behind the heart to it). With one: the mask of the film nearest to the mean, chosen without looking at masks.
Controls of the same run: the same points and mask where films stay in their frame (``unregistered``). Other controls:
``--model random`` and ``--model pixels``. ``--dev`` measures on training films instead of the test films; levels,
timesteps and all constants were chosen there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from records import add_records, record, summary
from scipy.stats import bootstrap
from torch.nn import functional

from monai_landmark.data.datalist import load_datalist
from monai_landmark.data.formats import read_film
from monai_landmark.files import file_sha256, write_text
from monai_landmark.generation.model import trained_generator
from monai_landmark.generation.zero_shot import FilmFeatures, GeneratorFeatures, ZeroShotSegmenter
from monai_landmark.networks import landmark_network
from monai_landmark.networks.feature_probe import FrozenFeatures

INSIDE = (
    *((0.37, 0.20), (0.25, 0.38), (0.20, 0.65), (0.35, 0.68), (0.37, 0.45), (0.16, 0.80)),
    *((0.64, 0.20), (0.72, 0.38), (0.80, 0.62), (0.86, 0.79), (0.62, 0.55), (0.65, 0.70), (0.61, 0.38)),
)
OUTSIDE = (
    *((0.48, 0.03), (0.48, 0.15), (0.48, 0.40), (0.48, 0.70), (0.48, 0.92)),  # neck, spine, abdomen
    *((0.30, 0.06), (0.15, 0.20), (0.10, 0.50), (0.09, 0.85), (0.25, 0.87)),  # shoulder, arm, chest wall, liver
    *((0.70, 0.06), (0.88, 0.20), (0.90, 0.50), (0.94, 0.85), (0.72, 0.87)),
)
RANDOM = {"objective": "flow", "timesteps": 1000}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datalist", type=Path, default=Path("runs/chest6/datalist.json"))
    parser.add_argument("--masks", type=Path, required=True, help="folder of <film>.png; above 0 is lung")
    parser.add_argument(
        "--model", required=True, help="a file that pretrain wrote, a folder of the generation's, random, pixels"
    )
    parser.add_argument("--grid", nargs=2, type=int, default=[128, 160], metavar=("H", "W"))
    parser.add_argument("--levels", nargs="+", default=["decoder_16", "decoder_8", "decoder_4"])
    parser.add_argument("--timesteps", nargs="+", type=int, default=[100])
    parser.add_argument("--with-pixels", action="store_true", help="what the control sees is described as well")
    parser.add_argument("--unlabelled", type=int, default=60, help="films of the training section in the mean")
    parser.add_argument(
        "--references", type=int, default=0, help="other films to take the one mask from, drawn by seed"
    )
    parser.add_argument(
        "--seen", type=Path, help="manifest.csv of films that the model was trained on, to name patients"
    )
    parser.add_argument("--dev", action="store_true", help="measure on 40 other films of the training section")
    parser.add_argument("--name", default="", help="of the records, after generation/chest/")
    parser.add_argument("--keep", type=Path, help="FILE.json of the measured values, to make the records again from")
    parser.add_argument("--json", type=Path, help="records are added, or take the place of those of their names")
    return parser.parse_args()


def load(items: Sequence[Mapping[str, Any]], masks: Path, grid: Sequence[int]) -> tuple[torch.Tensor, list[Any]]:
    """Films squashed to the grid ``(N, 1, H, W)`` in [-1, 1], and their masks at their own sizes."""
    films, truth = [], []
    for item in items:
        pixels = read_film(item["image"]).pixels
        low, high = np.percentile(pixels, [0.5, 99.5])
        scaled = torch.from_numpy(np.clip((pixels - low) / max(high - low, 1e-6), 0, 1) * 2 - 1).float()
        films.append(functional.interpolate(scaled[None, None], size=tuple(grid), mode="area")[0])
        with Image.open(masks / (Path(item["image"]).stem + ".png")) as mask:
            truth.append(np.asarray(mask) > 0)
    return torch.stack(films), truth


def pixel_features(films: torch.Tensor) -> dict[str, torch.Tensor]:
    """The control without a network: gray values and their gradients at three resolutions."""
    levels = {}
    for by in (4, 8, 16):
        small = functional.avg_pool2d(films, by)
        padded = functional.pad(small, (1, 1, 1, 1), mode="replicate")
        across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
        down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
        levels[f"pixels_{by}"] = torch.cat([small, across, down], dim=1)
    return levels


def film_features(args: argparse.Namespace) -> FilmFeatures:
    """What describes the films."""
    if args.model == "pixels":
        return pixel_features
    if Path(args.model).is_dir():
        return GeneratorFeatures(trained_generator(args.model), args.levels, args.timesteps)
    torch.manual_seed(0)
    random = args.model == "random"
    probe = landmark_network(
        1,
        "diffusion-tiny" if random else "auto",
        args.model,
        frozen=True,
        timesteps=args.timesteps,
        noise=True,
        schedule=RANDOM if random else None,
        probe={"levels": args.levels},
    )
    features: FrozenFeatures = probe.features  # type: ignore[union-attr, assignment]
    return features


def with_pixels(features: FilmFeatures) -> FilmFeatures:
    """Maps of a network, and those of the control beside them."""
    return lambda films: {**features(films), **pixel_features(films)}


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice of two masks."""
    return float(2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1))


class Lungs:
    """Dice of films that are registered once, from whatever marks the lungs on the mean."""

    def __init__(self, segmenter: ZeroShotSegmenter, films: torch.Tensor, truth: Sequence[NDArray[np.bool_]]) -> None:
        self.segmenter, self.truth, self.places = segmenter, truth, segmenter.places(films)

    def of(self, organ: torch.Tensor) -> NDArray[np.float64]:
        """``(N,)`` Dice at the films' own resolution."""
        found = []
        for place, truth in zip(self.places, self.truth, strict=True):
            mask = self.segmenter.segment(organ, place[None], (truth.shape[0], truth.shape[1]))[0]
            found.append(dice(mask, truth))
        return np.array(found)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Dice of every measured film, by kind."""
    training = load_datalist(args.datalist, "training")
    order = np.random.default_rng(0).permutation(len(training))
    pool = [training[index] for index in order[: args.unlabelled]]
    after = order[args.unlabelled : args.unlabelled + 40]
    items = [training[index] for index in after] if args.dev else load_datalist(args.datalist, "test")
    unlabelled, masks = load(pool, args.masks, args.grid)
    films, truth = load(items, args.masks, args.grid)
    start = time.process_time()
    features = film_features(args)
    segmenter = ZeroShotSegmenter(with_pixels(features) if args.with_pixels else features, unlabelled)
    lungs = Lungs(segmenter, films, truth)
    seconds = time.process_time() - start
    typical = int(segmenter.atlas.likeness.argmax())
    still = ZeroShotSegmenter(pixel_features, unlabelled, rounds=0)  # nothing of it is used but the films' frames
    frames = Lungs(still, films, truth)

    def reference(index: int) -> torch.Tensor:
        return torch.from_numpy(masks[index]).float()[None, None]

    places = segmenter.atlas.grids
    dices = {
        "zero_shot_dice": lungs.of(segmenter.from_points(INSIDE, OUTSIDE)),
        "one_shot_dice": lungs.of(segmenter.from_masks(reference(typical), places[typical : typical + 1])),
        "zero_shot_unregistered_dice": frames.of(segmenter.from_points(INSIDE, OUTSIDE)),
        "one_shot_unregistered_dice": frames.of(still.from_masks(reference(typical), still.atlas.grids[:1])),
    }
    others = [index for index in range(len(pool)) if index != typical][: args.references]
    drawn = [float(lungs.of(segmenter.from_masks(reference(i), places[i : i + 1])).mean()) for i in others]
    patients = [str(item["patient"]) for item in items]
    return {"dices": dices, "drawn": drawn, "patients": patients, "seconds": seconds, "reference": pool[typical]["id"]}


def interval(values: NDArray[np.float64], patients: Sequence[str]) -> list[float]:
    """95 % bootstrap interval of the mean; the films of a patient stay together."""
    names = sorted(set(patients))
    of = np.array(patients)
    sums = np.array([values[of == name].sum() for name in names])
    counts = np.array([(of == name).sum() for name in names])
    found = bootstrap(
        (sums, counts),
        lambda total, count, axis=-1: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [round(float(found.low), 4), round(float(found.high), 4)]


def described(args: argparse.Namespace) -> str:
    """What the films were compared by."""
    gray = "gray values and gradients at a quarter, an eighth and a sixteenth"
    if args.model == "pixels":
        maps = f"{gray}, no network"
    else:
        sha = f" (sha256 {file_sha256(args.model)[:12]})" if Path(args.model).is_file() else ""
        maps = f"features of {'/'.join(Path(args.model).parts[-2:])}{sha} at {', '.join(args.levels)}, timesteps "
        maps += f"{args.timesteps}{', and ' + gray if args.with_pixels else ''}"
    return (
        f"{maps}; films squashed to {args.grid[0]} x {args.grid[1]}, mean of {args.unlabelled} unlabelled training "
        "films; masks at the films' own size, region behind the heart counted as lung"
    )


def records(args: argparse.Namespace, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Result records, see docs/design.md section 8."""
    known = set()
    if args.seen:
        known = {line.split(",")[2] for line in args.seen.read_text(encoding="utf-8").splitlines()[1:]}
    unseen = np.array([patient not in known for patient in found["patients"]])
    notes = described(args)
    said = {
        "zero_shot": f"no mask; {len(INSIDE)} points in, {len(OUTSIDE)} outside the lungs, set once on the mean film",
        "one_shot": "one reference mask, of the film most like the mean",
    }
    every = []
    for name, values in found["dices"].items():
        for prefix, kept in (("", np.ones(len(values), bool)), ("leakfree_", unseen)):
            if prefix and (not known or "unregistered" in name):
                continue
            how = said[name[:8] if name.startswith("one") else name[:9]]
            every.append(
                record(
                    f"generation/chest/{'dev/' if args.dev else ''}{args.name}{prefix}{name}",
                    round(float(values[kept].mean()), 4),
                    "Dice",
                    int(kept.sum()),
                    interval=interval(values[kept], np.array(found["patients"])[kept].tolist()),
                    seeds=[0],
                    split="40 films of the training section" if args.dev else "test section by patient",
                    reader="annotators of the masks",
                    labels=0 if name.startswith("zero") else 1,
                    near_duplicates="patients of the model's training left out" if prefix else "kept",
                    notes=f"{how}; {'films left in their frame; ' if 'unregistered' in name else ''}{notes}",
                )
            )
    if found["drawn"]:
        last = dict(every[1 if not known else 2])
        last["name"] = last["name"].replace("one_shot_dice", "one_shot_drawn_dice")
        last |= {**summary(found["drawn"], 4), "seeds": list(range(len(found["drawn"])))}
        last["notes"] = "one reference mask, of a film drawn by chance, lowest and highest of them; " + notes
        every.append(last)
    return every


def main() -> None:
    """Measure, print, and write the records when asked."""
    args = arguments()
    if args.keep and args.keep.is_file():
        found = json.loads(args.keep.read_text(encoding="utf-8"))
        found["dices"] = {name: np.array(values) for name, values in found["dices"].items()}
    else:
        found = measured(args)
    if args.keep and not args.keep.is_file():
        write_text(args.keep, json.dumps(found | {"dices": {k: v.tolist() for k, v in found["dices"].items()}}))
    rows = records(args, found)
    for row in rows:
        print(f"{row['name']}: {row['value']:.3f} ({row['interval'][0]:.3f}-{row['interval'][1]:.3f}), n {row['n']}")
    print(f"{found['seconds']:.0f} s of processor time")
    if args.json:
        add_records(args.json, rows)


if __name__ == "__main__":
    main()
