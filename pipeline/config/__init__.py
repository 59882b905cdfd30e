"""params.yaml as one frozen, strict, typed `Config`; values can be set by dotted name.

section.py    what all sections have in common; the role of a key
axes.py       what a search may vary: ranges and choices
families.py   the families of networks: module, label, the keys that they read, legal depths
sources.py    the data sets: files, checksums, what reads them
schema.py     all keys, each with its type, its bounds, what it does and its role
model.py      likewise those of the section model
params.py     the sections together
own_network.py  the user's own network: its file, its digest, the keys that its function takes
extra.py      the values of those keys, with their defaults, and what is wrong with them
content.py    the digests of files that values name
names.py      the dotted names of the keys, and of those of older versions
roles.py      what a key is: searchable, decides a training, of the machine, fixed in a grid
files.py      YAML as plain dicts and lists; the file of model.weights
messages.py   sentences about what is wrong
checks.py     whether a search and the keys that it varies fit each other
loading.py    `Config`: reads and checks a file
resolved.py   the values that the stages depend on, default or not, as files
reference.py  every key with its default, its range and its sentence; docs/reference.md
scalars.py    a value as a person would write it in YAML
adding.py     where keys that a file lacks are added to it
writing.py    writes values into a file and changes nothing else in it
"""

from pipeline.config.axes import Axis, Choices, Number, Range, active
from pipeline.config.content import content_tags
from pipeline.config.extra import code_digests, code_places
from pipeline.config.families import FAMILIES, ZOO, Family
from pipeline.config.files import WEIGHTS_KEYS, parse_value, read_yaml, weights_digest, weights_file, yaml_text
from pipeline.config.loading import Config, check_search, grid, load, parse, schema
from pipeline.config.model import Model
from pipeline.config.names import defaults, had_no_effect, todays
from pipeline.config.own_network import (
    code_digest,
    code_root,
    copy_code,
    extra_keys,
    is_own,
    source_file,
    with_defaults,
)
from pipeline.config.roles import (
    decides_scoring,
    decides_training,
    fixed_in_grid,
    is_of_the_machine,
    searchable,
    why_not_searchable,
)
from pipeline.config.schema import Augment, Data, Evaluate, Train, Tune
from pipeline.config.section import Scalar
from pipeline.config.sources import SOURCES, Source
from pipeline.config.writing import fill, write_values

__all__ = [
    "FAMILIES",
    "SOURCES",
    "WEIGHTS_KEYS",
    "ZOO",
    "Augment",
    "Axis",
    "Choices",
    "Config",
    "Data",
    "Evaluate",
    "Family",
    "Model",
    "Number",
    "Range",
    "Scalar",
    "Source",
    "Train",
    "Tune",
    "active",
    "check_search",
    "code_digest",
    "code_digests",
    "code_places",
    "code_root",
    "content_tags",
    "copy_code",
    "decides_scoring",
    "decides_training",
    "defaults",
    "extra_keys",
    "fill",
    "fixed_in_grid",
    "grid",
    "had_no_effect",
    "is_of_the_machine",
    "is_own",
    "load",
    "parse",
    "parse_value",
    "read_yaml",
    "schema",
    "searchable",
    "source_file",
    "todays",
    "weights_digest",
    "weights_file",
    "why_not_searchable",
    "with_defaults",
    "write_values",
    "yaml_text",
]
