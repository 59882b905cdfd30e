"""Names what is in images, by a trained network.

examples:
  python -m pipeline.predict photo.jpg                    by the model of the last `dvc repro`
  python -m pipeline.predict photos/ 'more/*.png'         folders with all images below, patterns
  find . -name '*.jpg' | python -m pipeline.predict -     a list of files
  python -m pipeline.predict photo.jpg --model models:/flowers-main@best
  python -m pipeline.predict photo.jpg --explain          writes photo.jpg.explained.png: what the prediction rests on

MODEL is a file (.safetensors, .pt2, .onnx), a run in MLflow by id or name, or an address of MLflow's registry. Images
are decoded and resized as those of the training were. The probabilities are calibrated. Images that can't be read are
named and skipped; then the exit code is 1.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import guarded

DEFAULT_TOP = 3


def predict(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors, also when an image could not be read."""
    from pipeline.deployment.inputs import inputs
    from pipeline.deployment.opened import open_model
    from pipeline.deployment.predicting import Unreadable
    from pipeline.deployment.predicting import predict as predictions
    from pipeline.deployment.showing import display
    from pipeline.errors import DataError
    from pipeline.files import Project

    images = inputs(arguments.images, sys.stdin, urls=arguments.urls)
    model = open_model(Project.here(), arguments.model)
    shown = display(arguments.form, model.classes, arguments.top)
    began = time.perf_counter()
    unreadable = 0
    for image, found in zip(images, predictions(model, images), strict=True):
        if isinstance(found, Unreadable):
            print(f"{found.name}: {found.reason}", file=sys.stderr)
            unreadable += 1
            continue
        explained = None
        if arguments.explain or arguments.explain_to:
            from pipeline.deployment.explaining import explain

            explained = str(explain(model, found, image, arguments.explain_to))
        shown.add(found, explained)
    shown.close()
    seconds = time.perf_counter() - began
    count = len(images) - unreadable
    print(
        f"{count:,} image{'s' if count != 1 else ''}, {count / seconds:,.0f} images/s, by {model.name}", file=sys.stderr
    )
    if unreadable:
        raise DataError(f"{unreadable:,} of {len(images):,} images could not be read; they are named above.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder, pattern, address (--urls), or -")
    parser.add_argument("--model", metavar="MODEL", help="default: results/train/model.safetensors")
    parser.add_argument("--top", default=DEFAULT_TOP, type=_top, metavar="K", help=f"classes, default: {DEFAULT_TOP}")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", default="table", help="print JSON")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="print CSV")
    parser.add_argument("--urls", action="store_true", help="fetch images at http(s) addresses")
    parser.add_argument("--explain", action="store_true", help="write NAME.explained.png beside each image")
    parser.add_argument("--explain-to", type=Path, metavar="DIR", help="write these pictures into a folder")
    arguments = parser.parse_args(argv)
    return guarded(lambda: predict(arguments))


def _top(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
