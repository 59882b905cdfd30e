"""The code that travels with an MLflow model: copies of the modules that its predictions need.

The copies have a package of their own, which is named for their content: models of several versions may be loaded by
one process, and this project may be installed there too.
"""

import functools
import hashlib
import re
from pathlib import Path

SCRIPT = "served.py"
"""In the model's folder: what MLflow runs to load it ("models from code")."""
FOLDER = "code"
"""In the model's folder: what MLflow puts on Python's path before that."""
_MODULES = (
    "errors",
    "datasets.images",
    "datasets.outside",
    "datasets.signatures",
    "datasets.wide",
    "exporting.loaded",
    "exporting.program",
    "exporting.served",
)
_SCRIPT = """\
import mlflow.models
from {package}.exporting.served import Served

mlflow.models.set_model(Served())
"""
_OWN = re.compile(r"^(from|import) pipeline\b", flags=re.MULTILINE)


@functools.cache
def files() -> dict[str, bytes]:
    """The content of the files by their paths in the model's folder."""
    root = Path(__file__).parents[1]
    texts = {name: (root / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8") for name in _MODULES}
    package = f"pipeline_{hashlib.sha256(''.join(texts.values()).encode()).hexdigest()[:12]}"
    found = {f"{FOLDER}/{package}/{folder}__init__.py": b"" for folder in ("", "datasets/", "exporting/")}
    for name, text in texts.items():
        renamed = _OWN.sub(rf"\1 {package}", text)
        found[f"{FOLDER}/{package}/{name.replace('.', '/')}.py"] = renamed.encode()
    return found | {SCRIPT: _SCRIPT.format(package=package).encode()}
