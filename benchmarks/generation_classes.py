"""Do drawn films help a classifier that has few real ones? Chest classes, 10 to 100 real films a class, several seeds.

    python benchmarks/generation_classes.py --manifest DIR/chest/manifest.csv --datalist runs/chest6/datalist.json \
        --encoder tf_efficientnet_lite0 --weights FILE --model runs/diffusion --json docs/results/generation.json

The classifier is the same in every row: a frozen timm encoder, its pooled features standardized by the films it learns
from, and a logistic head. Test patients are those of the datalist's test section, always. ``--model`` is the folder of
the generation's ``pretrain``; each cell draws its films from the embeddings of its own real films, each of the class of
those, so that no label from outside the budget comes in. ``real+other real`` puts the films of the training patients
outside the budget, with their true labels, in the place of drawn ones: what drawn films could be worth at best.
Features are computed once and kept under ``--work``; finished cells are not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import add_records, record, summary
from torch.nn import functional

from monai_landmark.data.datalist import load_datalist
from monai_landmark.files import file_sha256, write_text
from monai_landmark.generation.embedding import embedded_films, film_embedder
from monai_landmark.generation.generate import FilmGeneration
from monai_landmark.generation.model import trained_generator
from monai_landmark.uncertainty.ranking import auroc

ROWS = ("real", "real+synthetic", "synthetic", "real+other real", "other real")
DECAY = 0.01  # of the head's weights
ITERATIONS = 60  # of L-BFGS
Films = tuple[torch.Tensor, torch.Tensor]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, required=True, help="CSV of image, id, patient_group and class")
    parser.add_argument("--datalist", type=Path, default=Path("runs/chest6/datalist.json"))
    parser.add_argument("--encoder", default="tf_efficientnet_lite0", help="timm network, or a folder `embed` wrote")
    parser.add_argument("--weights", help="of a timm network: a file")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--model", type=Path, help="folder of a diffusion model; rows with drawn films need it")
    parser.add_argument("--strategy", default="neighborhood", help="how films are drawn, see docs/generation.md")
    parser.add_argument("--per-film", type=int, default=4, help="films drawn for each real one")
    parser.add_argument("--steps", type=int, default=25, help="of the drawing")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--draw-up-to", type=int, default=100, help="largest budget that films are drawn for")
    parser.add_argument("--films", type=int, nargs="+", default=[10, 25, 50, 100], help="real films a class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, default=Path("runs/generation_classes"))
    parser.add_argument("--json", type=Path, help="records are added, or take the place of those of their names")
    return parser.parse_args()


def real_films(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Films of the manifest, each with its class and whether its patient is a test patient."""
    tested = {str(item["image"]) for item in load_datalist(args.datalist, "test")}
    with args.manifest.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    films = [{**row, "image": str((args.manifest.parent / row["image"]).resolve())} for row in rows]
    patients = {film["patient_group"] for film in films if film["image"] in tested}
    if not patients:
        raise SystemExit(f"{args.datalist}: no test film of it is in {args.manifest}")
    return [{**film, "test": film["patient_group"] in patients} for film in films]


def drawn_films(args: argparse.Namespace, films: Sequence[dict[str, Any]], name: str, seed: int) -> Path:
    """The manifest of films drawn from the real ones of a cell; drawn once."""
    sha = file_sha256(args.model / "model.safetensors")[:12]
    folder = args.work / "drawn" / f"{sha}_{args.strategy}_{args.per_film}_{args.steps}_{args.guidance}" / name
    if not (folder / "manifest.json").is_file():
        FilmGeneration(
            trained_generator(args.model),
            [{name: film[name] for name in ("image", "id", "class")} for film in films],
            folder,
            count=args.per_film * len(films),
            strategy=args.strategy,
            guidance=args.guidance,
            steps=args.steps,
            neighbors=3,
            class_field="class",
            embeddings=args.work / "tokens.safetensors",
            seed=seed,
        ).run()
    return folder / "manifest.json"


def listed_films(manifest: Path) -> list[dict[str, Any]]:
    """Drawn films with their class."""
    films = json.loads(manifest.read_text(encoding="utf-8"))["films"]
    return [{**film, "image": str(manifest.parent / film["image"])} for film in films]


def pooled(args: argparse.Namespace, films: Sequence[dict[str, Any]], classes: Sequence[str]) -> Films:
    """``(N, D)`` features and ``(N,)`` classes."""
    embedder = film_embedder(args.encoder, args.weights, 0, (args.size, args.size))
    shown = [{"image": film["image"]} for film in films]
    found = embedded_films(shown, embedder, args.work / "features.safetensors")
    return torch.stack([film["source"][0] for film in found]), torch.tensor([classes.index(f["class"]) for f in films])


def budget(labels: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Indices of so many films a class, drawn by seed; a larger budget holds the smaller one's films."""
    generator = np.random.default_rng(seed)
    chosen = []
    for number in range(int(labels.max()) + 1):
        of_class = np.flatnonzero(labels.numpy() == number)
        chosen.append(generator.permutation(of_class)[:count])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def fitted_auc(parts: Sequence[Films], test: Films, classes: int) -> float:
    """Macro one-against-rest AUC on the test films of a head fitted to the parts.

    Every part has the same weight in all, and every class in a part: many drawn films do not outvote few real ones.
    """
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    weights = torch.cat([_balanced(part[1], classes) for part in parts])
    center, spread = features.mean(0), features.std(0).clamp_min(1e-6)
    inputs, seen = (features - center) / spread, (test[0] - center) / spread
    head = torch.zeros(inputs.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([head], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = functional.cross_entropy(inputs @ head[:-1] + head[-1], labels, reduction="none")
        loss = (weights * losses).sum() / weights.sum() + DECAY * head[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    likely = (seen @ head[:-1] + head[-1]).softmax(dim=1).detach().numpy()
    truth = test[1].numpy()
    return statistics.mean(auroc(likely[:, c], (truth == c).astype(float), 0.5) for c in range(classes))


def _balanced(labels: torch.Tensor, classes: int) -> torch.Tensor:
    counts = torch.bincount(labels, minlength=classes).clamp_min(1)
    return 1.0 / counts[labels] / classes


def cells(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """AUC of every row, budget and seed; kept in a file as they are finished."""
    films = real_films(args)
    classes = sorted({film["class"] for film in films})
    training, test = ([film for film in films if film["test"] is part] for part in (False, True))
    own, held = (pooled(args, some, classes) for some in (training, test))
    path = args.work / "cells.json"
    done: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    facts = [args.encoder, args.weights and file_sha256(args.weights), args.size, DECAY, ITERATIONS]
    facts.append(file_sha256(args.datalist))
    for count in args.films:
        for seed in args.seeds:
            chosen = budget(own[1], count, seed).tolist()
            others = [index for index in range(len(training)) if index not in set(chosen)]
            real, other = (tuple(each[index] for each in own) for index in (chosen, others))
            parts: dict[str, list[Any]] = {"real": [real], "real+other real": [real, other], "other real": [other]}
            hashes: list[str] = []
            if args.model and count <= args.draw_up_to:
                manifest = drawn_films(args, [training[index] for index in chosen], f"{count}_{seed}", seed)
                synthetic = pooled(args, listed_films(manifest), classes)
                hashes = [file_sha256(manifest)]
                parts |= {"real+synthetic": [real, synthetic], "synthetic": [synthetic]}
            for row, given in parts.items():
                key, wanted = f"{row}/{count}/{seed}", [*facts, hashes if "synthetic" in row else []]
                if done.get(key, {}).get("facts") != wanted:
                    value = fitted_auc(given, held, len(classes))
                    sizes = [len(part[1]) for part in given]
                    done[key] = {"auc": value, "films": sizes, "test": len(held[1]), "facts": wanted}
            write_text(path, json.dumps(done))
    return done


def table(args: argparse.Namespace, done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the table, and make the records of it."""
    made: list[dict[str, Any]] = []
    print("| training films | " + " | ".join(f"{count} a class" for count in args.films) + " |")
    print("| --- " * (len(args.films) + 1) + "|")
    for row in ROWS:
        shown = []
        for count in args.films:
            found = [done.get(f"{row}/{count}/{seed}") for seed in args.seeds]
            if any(cell is None for cell in found):
                shown.append("-")
                continue
            values = [cell["auc"] for cell in found if cell]
            base = [done[f"real/{count}/{seed}"]["auc"] for seed in args.seeds]
            gains = [value - before for value, before in zip(values, base, strict=True)]
            shown.append(f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})")
            first = found[0] or {}
            shared = {
                "n": first["test"],
                "seeds": args.seeds,
                "split": f"{count} films a class drawn by seed from the patients outside the test section",
                "reader": "classes of the data set",
                "labels": count,
                "near_duplicates": "kept",
                "notes": f"frozen {Path(args.encoder).name} at {args.size} x {args.size}, logistic head, weight decay "
                f"{DECAY}; macro one-against-rest over 3 classes; {first['films']} films at the first seed"
                + (f"; {_drawing(args)}" if "synthetic" in row else ""),
            }
            name = f"generation/chest/{count}/{row.replace(' ', '_')}"
            made.append(record(f"{name}/auc", unit="AUC", **summary(values, 4), **shared))
            if row != "real":
                gain = f"generation/chest/{count}/auc_gain" if row == "real+synthetic" else f"{name}/auc_gain"
                made.append(record(gain, unit="AUC", **summary(gains, 4), **shared))
        print(f"| {row} | " + " | ".join(shown) + " |")
    return made


def _drawing(args: argparse.Namespace) -> str:
    """How films were drawn."""
    if args.model is None:
        return "drawn films of an earlier run"
    sha = file_sha256(args.model / "model.safetensors")[:12]
    drawing = f"{args.strategy}, {args.steps} steps, guidance {args.guidance}"
    return f"model {sha}, {drawing}, {args.per_film} drawn from each of the cell's own real films"


def main() -> None:
    """Fill the table and write the records when asked."""
    args = arguments()
    rows = table(args, cells(args))
    if args.json:
        add_records(args.json, rows)


if __name__ == "__main__":
    main()
