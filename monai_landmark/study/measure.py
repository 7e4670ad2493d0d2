"""Measures a detector without training, or predicts films without annotations by it.

``python -m monai_landmark.study.measure nearest_film --datalist FILE --section unlabelled --output_dir DIR``.
"""

from __future__ import annotations

import argparse
import ast
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_landmark.data.budget import labeled_films
from monai_landmark.data.datalist import Datalist, load_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.networks import frozen_features, landmark_network
from monai_landmark.results.evaluate import write_evaluation
from monai_landmark.results.files import save_results
from monai_landmark.study.baselines import BASELINES, GRID, baseline_results

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Predict the films of a section from a few annotated ones, and write the report.

    Of a section without annotations there is nothing to report but ``predictions.json``.

    Args:
        argv: the command line without the program's name; ``sys.argv`` by default.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("baseline", choices=BASELINES)
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--section", default="test")
    parser.add_argument("--labels", type=int, default=0, help="annotated films, drawn by the seed; 0: all")
    parser.add_argument("--label_order", type=Path, help="the CSV of select: its films come first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--architecture", default="tf_efficientnet_lite0", help="whose features are compared")
    parser.add_argument("--initialization", default="random", help="random, imagenet or a weights file")
    parser.add_argument("--spatial_size", type=ast.literal_eval, default=GRID, help="[H, W] of its grid")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args(argv)

    datalist = Datalist.load(args.datalist)
    schema = LandmarkSchema.load(str(datalist.schema))
    labeled = labeled_films(args.datalist, args.labels, seed=args.seed, order=args.label_order)
    network = None
    if args.baseline != "mean_shape":
        network = frozen_features(landmark_network(schema.count, args.architecture, args.initialization))
    own = {film["id"] for film in labeled}
    films = [film for film in load_datalist(args.datalist, args.section) if film["id"] not in own]
    results = baseline_results(args.baseline, labeled, films, schema, network, args.spatial_size)
    if not any(film.get("landmarks") for film in films):
        save_results(results, args.output_dir / "predictions.json")
        return
    card = {
        "initialization": args.baseline,
        "label_budget": len(labeled),
        "films": [film["id"] for film in labeled],
        "seed": args.seed,
    }
    command = shlex.join(["python", "-m", "monai_landmark.study.measure", *(sys.argv[1:] if argv is None else argv)])
    write_evaluation(results, schema, card, args.datalist, args.section, args.output_dir, command=command)


if __name__ == "__main__":
    main()
