"""``python -m monai_landmark label``: label films or scans with MONAI Label, and train on the labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_landmark.data.spacing import check_spacing
from monai_landmark.label.server import start_server, write_app
from monai_landmark.safety import TRUST_HELP

HELP = "label films or CT scans with MONAI Label: predict, correct, train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    start = actions.add_parser("start", help="start the server")
    start.add_argument(
        "--studies", required=True, help="folder of films or CT scans, or http(s)://.../dicom-web of a PACS"
    )
    start.add_argument("--model-dir", type=Path, required=True, help="folder that train wrote, or a new one")
    start.add_argument("--bundle", type=Path, help="folder of the bundle (default: of bundles/, the model's)")
    start.add_argument("--pretrained", type=Path, metavar="FILE", help="weights that trainings start from")
    start.add_argument("--schema", help="landmarks to find (default: those of the model)")
    start.add_argument("--architecture", help="of a first training (default: as the weights say)")
    start.add_argument("--spatial-size", nargs=2, type=int, metavar=("H", "W"), help="grid of a first training")
    start.add_argument(
        "--spacing", nargs=2, type=float, metavar=("ROW_MM", "COL_MM"), help="pixel spacing of all these films"
    )
    start.add_argument("--modalities", nargs="+", metavar="CODE", help="of the PACS (default: CR DX RG PX IO)")
    start.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    start.add_argument("--trust", action="append", metavar="SHA256", help=TRUST_HELP)
    start.add_argument("--host", default="127.0.0.1", help="address to listen on; others need authentication")
    start.add_argument("--port", type=int, default=8000)
    start.add_argument("--max-upload-mib", type=int, default=256, metavar="MIB", help="larger requests are refused")
    app = actions.add_parser("app", help="write the folder that `monailabel start_server --app` wants")
    app.add_argument("--out", type=Path, required=True, help="the folder")
    app.add_argument("--model-dir", type=Path, help="folder of the model that is to be served; by default of landmarks")


def run(args: argparse.Namespace) -> int:
    """Start the server, or write the app's folder.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0 when the server was stopped.

    Raises:
        DataError: if the server cannot be started as asked.
    """
    if args.action == "app":
        print(write_app(args.out, args.model_dir))
        return 0
    if args.spacing is not None:
        check_spacing(args.spacing, field="--spacing")
    paths = {"model_dir": args.model_dir, "bundle": args.bundle, "pretrained": args.pretrained}
    conf = {key: str(path.absolute()) for key, path in paths.items() if path is not None}
    words = {"schema": args.schema, "architecture": args.architecture, "device": args.device}
    conf |= {key: word for key, word in words.items() if word is not None}
    lists = {"spatial_size": args.spatial_size, "spacing": args.spacing, "modalities": args.modalities}
    lists["trust"] = args.trust
    conf |= {key: " ".join(map(str, values)) for key, values in lists.items() if values is not None}
    start_server(args.studies, {**conf, "max_upload_mib": str(args.max_upload_mib)}, args.host, args.port)
    return 0
