"""The whole road of `bundles/xray_generation` on synthetic films, from one command, with the time that each step takes.

    python benchmarks/generation.py [--out DIR] [--films 160] [--minutes 9] [--size 64] [--latent] [--json FILE]

Steps: synthesize, embed, autoencode (with --latent), pretrain, generate, evaluate. Trainings get their share of the
minutes, so that all of it stays within a quarter of an hour on two cores. DIR/generated/contact_sheet.png shows it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "xray_generation" / "configs"
SHARES = {"embed": 0.2, "autoencode": 0.25, "pretrain": 0.55}


def steps(out: Path, films: int, minutes: float, size: int, latent: bool) -> list[tuple[str, list[str]]]:
    """Name and words of every command."""
    grid = f"[{size},{size}]"
    shares = {name: share for name, share in SHARES.items() if latent or name != "autoencode"}
    budget = {name: f"{minutes * share / sum(shares.values()):.3f}" for name, share in shares.items()}

    def bundle(name: str, folder: str, *words: str) -> tuple[str, list[str]]:
        """A command of the bundle."""
        given = ["--config_file", str(CONFIGS / f"{name}.yaml"), "--dataset_dir", str(out / "films")]
        given += ["--output_dir", str(out / folder), *words]
        given += ["--budget", budget[name], "--epochs", "1000"] if name in budget else []
        return name, ["-m", "monai.bundle", "run", name, *given]

    kept = ["--embeddings", str(out / "embeddings.safetensors")]
    made = ["--training", "24", "--test", "24", "--unlabelled", str(films - 24)]
    road = [("synthesize", ["-m", "monai_landmark", "synthesize", str(out / "films"), *made])]
    encoder = ["--architecture", "mobilenetv3_small_100", "--steps_per_epoch", "10"]
    road.append(bundle("embed", "embedding", *encoder))
    model = ["--embedding", str(out / "embedding"), "--spatial_size", grid, "--steps_per_epoch", "20", *kept]
    model += ["--objective", "ddpm", "--prediction", "sample"]  # what a short training learns soonest
    model += ["--unet", "{'patch_size': 4, 'channels': [48, 96, 128]}"] if not latent else []
    if latent:
        perceptual = ["--perceptual", str(out / "embedding")]
        road.append(bundle("autoencode", "autoencoder", "--spatial_size", grid, "--steps_per_epoch", "20", *perceptual))
        model += ["--autoencoder", str(out / "autoencoder")]
    road.append(bundle("pretrain", "diffusion", *model))
    drawing = ["--model_dir", str(out / "diffusion"), *kept]
    road.append(bundle("generate", "generated", *drawing, "--count", "32", "--steps", "30"))
    measured = ["--drawn_dir", str(out / "generated"), "--judge", str(out / "embedding")]
    road.append(bundle("evaluate", "evaluation", *measured))
    return road


def main() -> None:
    """Walk the road and tell the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/generation"))
    parser.add_argument("--films", type=int, default=160)
    parser.add_argument("--minutes", type=float, default=9.0, help="of training in all")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--latent", action="store_true", help="diffuse the latents of an autoencoder")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    taken: dict[str, dict[str, float]] = {}
    for name, words in steps(given.out, given.films, given.minutes, given.size, given.latent):
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        taken[name] = {"wall_s": round(time.monotonic() - began, 1), "processor_s": round(processor, 1)}
    taken["all"] = {key: round(sum(each[key] for each in taken.values()), 1) for key in ("wall_s", "processor_s")}
    for name, each in taken.items():
        print(f"{name:12s} {each['wall_s']:8.1f} s  {each['processor_s']:8.1f} s of processor")
    if given.json is not None:
        given.json.write_text(json.dumps(taken, indent=1))


if __name__ == "__main__":
    main()
