"""Writes a trained network for other programs, and checks on real images that it predicts the same there.

examples:
  python -m pipeline.export                               the model of the last `dvc repro` as ONNX
  python -m pipeline.export --format onnx --format int8   both, side by side
  python -m pipeline.export --model models:/flowers-main@best --format pt2
  python -m pipeline.export --on test                     checked on the test set

Formats: onnx (any batch size), int8 (ONNX, weights and activations of 8 bits), pt2 (torch.export), safetensors. Each
file is checked on the whole validation part: largest difference of probabilities, accuracy, size, latency.
MODEL_CARD.md beside it has the figures; the run in MLflow gets the card too. Default folder: results/export.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import guarded

FORMATS = ("onnx", "int8", "pt2", "safetensors")


def export(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors."""
    from rich.console import Console
    from rich.table import Table

    from pipeline.deployment.checking import HEADINGS
    from pipeline.deployment.exporting import Order, export_files
    from pipeline.files import Project
    from pipeline.machine import granted_cores

    forms = tuple(dict.fromkeys(arguments.format or ["onnx"]))
    threads = arguments.threads or granted_cores()
    order = Order(arguments.model, forms, arguments.output, arguments.on, arguments.license, threads)
    console = Console(markup=False, highlight=False, width=None if Console().is_terminal else 160)
    done = export_files(Project.here(), order)
    table = Table(*HEADINGS, box=None, pad_edge=False)
    for row in done.rows:
        table.add_row(*row)
    console.print(table)
    console.print(done.summary, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--format", action="append", choices=FORMATS, help="default: onnx; can be repeated", metavar="FORMAT"
    )
    parser.add_argument("--model", metavar="MODEL", help="as of `predict`; default: results/train/model.safetensors")
    parser.add_argument("--output", type=Path, metavar="PATH", help="a file; with several formats a folder")
    parser.add_argument("--on", choices=("validation", "test"), default="validation", help="default: validation")
    parser.add_argument("--license", default="unknown", metavar="NAME", help="for the model card, such as apache-2.0")
    parser.add_argument("--threads", type=_threads, metavar="N", help="that are timed, default: all granted cores")
    arguments = parser.parse_args(argv)
    return guarded(lambda: export(arguments))


def _threads(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
