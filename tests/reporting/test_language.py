"""The page in Korean: every piece of the catalogue is in its source, and no English prose is left."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_results import Page, predictions, write_beside, write_grid, write_results
from made_searches import history

from pipeline.errors import ConfigError
from pipeline.reporting import comparison, language, results
from pipeline.reporting import page as pages

REPORTING = Path(language.__file__).parent
KOREAN = language.load("ko")
HANGUL = re.compile(r"[가-힣]")


def sources(kind: str) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted(language.FOLDER.glob(f"*.{kind}")))


def said() -> set[str]:
    """All sentences that Python says: literal arguments of say(...), and those that are chosen from."""
    found = {*comparison.VERDICTS.values()}
    for path in [*REPORTING.glob("*.py"), REPORTING.parent / "report.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("say", "self", "other.language"):
                found |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
    return found


def test_every_piece_is_in_its_source() -> None:
    assert [piece for piece in KOREAN.templates if piece not in sources("j2")] == []
    assert [piece for piece in KOREAN.script if piece not in sources("js")] == []


def test_every_sentence_of_python_has_a_translation_with_the_same_holes() -> None:
    assert said() - set(KOREAN.sentences) == set()
    for english, korean in KOREAN.sentences.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", korean)), english


def everything(root: Path, **changes: Any) -> Page:
    """A Korean page on which all there is to say is said."""
    project = write_results(root)
    write_beside(project)
    write_grid(project, figure=False)
    project.suspects.write_bytes(project.mistakes.read_bytes())
    run = json.loads(project.run.read_text())
    equal = {"training": 3, "test": 0, "leaked": 2, "conflicting": 1, "leaked_into_validation": 1, "examples": {}}
    run["data"] |= {"duplicates": equal, "near_duplicates": {"test": 1, "compared": 9, "examples": []}}
    run["data"]["counts"]["validation"] = 5000
    run["provenance"]["git_dirty"] = True
    project.run.write_text(json.dumps(run))
    found = results.read(project)
    assert found.predictions
    compared = comparison.compare("HEAD", predictions(10_000, seed=0), found.predictions, found.classes, [])
    other = pages.Beside(history(**changes), comparison=compared, language=KOREAN)
    return Page(pages.page(found, other))


@pytest.mark.parametrize("changes", [{}, {"importances": {}, "is_running": True}, {"events": []}])
def test_a_korean_page_has_no_english_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    page = everything(tmp_path, **changes)
    assert page.all("html") == [{"lang": "ko"}]
    prose = re.sub(r"<(style|script|code|pre)\b.*?</\1>", "", page.html, flags=re.DOTALL)
    prose = re.sub(r'<(\w+)[^>]*class="[^"]*mono[^"]*"[^>]*>.*?</\1>', "", prose, flags=re.DOTALL)
    texts = re.findall(r">([^<]+)<", prose) + re.findall(r'(?:aria-label|data-alt|alt)="([^"]+)"', prose)
    english = [
        text.strip()
        for text in texts
        if not HANGUL.search(text) and len(re.findall(r"\b[a-z]{2,}\b", text)) >= 3 and "learning_rate" not in text
    ]
    # What is left is data: the reason of a failure, and versions.
    assert {text for text in english if "the loss was" not in text and "torch&nbsp;" not in text} == set()
    assert "모델이 좋은가?" in page.text


def test_the_script_has_no_english_label() -> None:
    script = KOREAN.of_script(sources("js"))
    labels = re.findall(r'(?:label|legend): "([^"]+)"', script)
    assert len(labels) > 10
    assert [label for label in labels if not HANGUL.search(label)] == []


def test_durations_have_korean_units() -> None:
    assert KOREAN.duration(200) == "3분 20초"
    assert KOREAN.duration(7500) == "2시간 05분"
    assert language.ENGLISH.duration(200) == "3 min 20 s"


def test_pieces_are_replaced_at_once_the_longest_first() -> None:
    made = language.Language("xx", script={"a b": "b", "a": "c", "b": "a"})
    assert made.of_script("a b a b a") == "b b c"


def test_the_language_is_that_of_params_yaml(tmp_path: Path) -> None:
    project = write_results(tmp_path)
    assert pages.beside(project, {}).language == language.ENGLISH
    project.params.write_text("report:\n  language: ko\n")
    assert "어디서 틀리는가?" in pages.page(results.read(project), pages.beside(project, {}))
    project.params.write_text("report:\n  language: fr\n")
    with pytest.raises(ConfigError, match=r"report\.language must be"):
        pages.beside(project, {})
