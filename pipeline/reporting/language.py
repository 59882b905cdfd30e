"""The page in another language. English is the source: a catalogue names pieces of it with their translation.

A catalogue (template/ko.json) has three parts. `templates` are pieces of the templates' source, `script` pieces of the
page's script, each with its holes as they are; both are replaced before the template or the script is used, so that no
class name or value can be mistaken for a piece. `sentences` are those that Python makes, with named holes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import cli
from pipeline.reporting import formats

FOLDER = Path(__file__).parent / "template"


@dataclass(frozen=True)
class Language:
    """English, or one with a catalogue."""

    name: str = "en"
    templates: Mapping[str, str] = field(default_factory=dict)
    script: Mapping[str, str] = field(default_factory=dict)
    sentences: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, sentence: str, **values: Any) -> str:
        """A sentence with values in its holes, as str.format has them."""
        return self.sentences.get(sentence, sentence).format(**values)

    def template(self, file: str) -> str:
        return _replaced((FOLDER / file).read_text(encoding="utf-8"), self.templates)

    def of_script(self, text: str) -> str:
        return _replaced(text, self.script)

    def percent(self, share: float, digits: int = 1) -> str:
        """As formats.percent; in Korean without the space."""
        text = formats.percent(share, digits)
        return text.replace("\u00a0", "") if self.name == "ko" else text

    def certainty(self, share: float) -> str:
        """A confidence in percent; one just below 1 does not become a certainty by rounding."""
        return self("over {share}", share=self.percent(0.999)) if 0.9995 <= share < 1 else self.percent(share)

    def speed(self, images_per_second: float) -> str:
        return self("{count} images/s", count=formats.significant(images_per_second))

    def duration(self, seconds: float) -> str:
        """As cli.duration, with this language's units."""
        text = cli.duration(seconds)
        if self.name != "ko":
            return text
        for unit, word in ((" min", "분"), (" h", "시간"), (" s", "초")):
            text = text.replace(unit, word)
        return text


ENGLISH = Language()


def load(name: str) -> Language:
    """`name` is a value of report.language."""
    if name == "en":
        return ENGLISH
    catalogue = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Language(name, **catalogue)


def _replaced(text: str, pieces: Mapping[str, str]) -> str:
    """All pieces at once, the longest first, so that none is looked for in what another has put there."""
    if not pieces:
        return text
    ordered = sorted(pieces, key=lambda piece: -len(piece))
    return re.sub("|".join(map(re.escape, ordered)), lambda found: pieces[found[0]], text)
