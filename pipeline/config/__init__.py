"""params.yaml as one frozen, strict, typed `Config`; values can be set by dotted name.

sections.py      what there is to set: each key with its type, its bounds and what it does
axes.py          what a search may vary: ranges and choices
names.py         the dotted names
search_check.py  whether a search and the keys that it varies fit each other
sentences.py     what is wrong, in sentences
loading.py       a file read and checked
writing.py       values written into a file in which nothing else changes
files.py         YAML as plain dicts and lists; the files that values name
"""

from pipeline.config.axes import Axis, Choices, Number, Range, Scalar, active
from pipeline.config.files import parse_value, read_yaml, weights_digest, weights_file, yaml_text
from pipeline.config.loading import check_search, grid, load, parse, schema
from pipeline.config.names import had_no_effect
from pipeline.config.schema import Augment, Config, Data, Evaluate, Model, Train, Tune
from pipeline.config.writing import write_values

__all__ = [
    "Augment",
    "Axis",
    "Choices",
    "Config",
    "Data",
    "Evaluate",
    "Model",
    "Number",
    "Range",
    "Scalar",
    "Train",
    "Tune",
    "active",
    "check_search",
    "grid",
    "had_no_effect",
    "load",
    "parse",
    "parse_value",
    "read_yaml",
    "schema",
    "weights_digest",
    "weights_file",
    "write_values",
    "yaml_text",
]
