"""The page in a real browser: drawn, sorted, filtered, hovered, saved, printed, and reached by keyboard alone."""

import base64
import csv
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import headless_browser
from extras import needed
from made_results import CIFAR, write_beside, write_results
from made_searches import history, surface

from pipeline.files import Project
from pipeline.reporting import page as pages
from pipeline.reporting import results

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report in a browser")]

LINK = "#/experiments/1/runs/f00"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("browser")
    with headless_browser(folder) as driver:
        downloads = {"behavior": "allow", "downloadPath": str(folder)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
        driver.downloads = folder  # type: ignore[attr-defined]
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything."""
    project = write_results(tmp_path_factory.mktemp("everything"))
    write_beside(project)
    project.suspects.write_bytes(project.mistakes.read_bytes())
    links = {f"study-abc-trial-{number:04}": LINK for number in range(30)}
    return written(project, pages.Beside(history(), links=links))


def written(project: Project, other: pages.Beside) -> str:
    project.report.mkdir(parents=True, exist_ok=True)
    project.page.write_text(pages.page(results.read(project), other), encoding="utf-8")
    return project.page.as_uri()


@pytest.fixture
def run(browser: Any, address: str) -> Callable[[str], Any]:
    """Opens the page anew and runs JavaScript on it."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.get(address)
    return browser.execute_script  # type: ignore[no-any-return]


def until(true: Callable[[], bool]) -> bool:
    """Whether something becomes true in 5 seconds."""
    end_s = time.monotonic() + 5
    while time.monotonic() < end_s:
        if true():
            return True
        time.sleep(0.05)
    return False


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def test_every_picture_is_drawn_and_has_its_words(browser: Any, run: Callable[[str], Any]) -> None:
    empty, wordless, count = run(
        "const plots = [...document.querySelectorAll('[data-picture]')], svgs = [...document.querySelectorAll('svg')];"
        "return [plots.filter(plot => !plot.querySelector('svg path, svg circle, svg rect'))"
        " .map(plot => plot.dataset.picture), svgs.filter(svg => svg.getAttribute('role') !== 'img'"
        " || (svg.getAttribute('aria-label') || '').length < 15).map(svg => svg.parentNode.outerHTML.slice(0, 80)),"
        " plots.length]"
    )
    assert empty == []
    assert wordless == []
    assert count >= 17
    assert complaints(browser) == []


def test_no_request_leaves_the_page_and_none_could(browser: Any, run: Callable[[str], Any]) -> None:
    asked = run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    run("new Image().src = 'http://127.0.0.1:9/leak'; fetch('http://127.0.0.1:9/leak').catch(() => 0);")
    assert until(lambda: len(messages := complaints(browser)) >= 2 or "Content Security Policy" in str(messages))


@pytest.mark.parametrize("width", [1200, 700, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(browser: Any, address: str, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(address)
    beyond = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    wide = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll')"
        " && one.getBoundingClientRect().right > innerWidth).map(one => one.outerHTML.slice(0, 90))"
    )
    assert browser.execute_script(beyond) <= 0, wide
    assert complaints(browser) == []


def test_the_trials_sort_by_a_click_on_a_heading(run: Callable[[str], Any]) -> None:
    click = (
        "const table = document.querySelector('table.trials');"
        "const head = [...table.tHead.rows[0].cells].find(cell => cell.dataset.value === 'accuracy');"
        "head.querySelector('button').click();"
        "return [head.getAttribute('aria-sort'), [...table.tBodies[0].rows].map(row => row.cells[2].dataset.value)]"
    )
    for direction in ("ascending", "descending"):
        how, values = run(click)
        assert how == direction
        known = [float(value) for value in values if value is not None]
        assert known == sorted(known, reverse=direction == "descending")
        assert values[-1] is None  # trials without an accuracy come last


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("", 30), ("diverged", 3), ("finished learning_rate>0.1", None), ("batch_size=32 epochs<=1", None), ("xyz", 0)],
)
def test_the_trials_filter_by_words_and_comparisons(
    run: Callable[[str], Any], typed: str, expected: int | None
) -> None:
    shown = run(
        "const input = document.querySelector('#search input[placeholder*=learning_rate]');"
        f"input.value = '{typed}'; input.dispatchEvent(new Event('input'));"
        "return [...document.querySelectorAll('table.trials tbody tr')].filter(row => !row.hidden)"
        " .map(row => Number(row.dataset.trial))"
    )
    trials = history().trials
    if typed.startswith("finished"):
        expected_trials = [t.number for t in trials if t.state == "finished" and t.values["train.learning_rate"] > 0.1]
        assert sorted(shown) == expected_trials
    elif typed.startswith("batch"):
        chosen = [t.number for t in trials if t.values["train.batch_size"] == 32 and len(t.scores) <= 1]
        assert sorted(shown) == chosen
    else:
        assert len(shown) == expected


def test_the_filtered_trials_are_saved_as_csv(browser: Any, run: Callable[[str], Any]) -> None:
    run(
        "const input = document.querySelector('#search input[placeholder*=learning_rate]');"
        "input.value = 'diverged'; input.dispatchEvent(new Event('input'));"
        "input.parentNode.querySelector('button').click();"
    )
    path: Path = browser.downloads / "trials.csv"
    assert until(path.exists)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [row["trial"] for row in rows] == ["9", "19", "29"]
    assert float(rows[0]["train.learning_rate"]) == history().trials[9].values["train.learning_rate"]
    assert rows[0]["why"] == "the loss was <nan> in epoch 1"


def test_hovering_a_trial_tells_its_values_and_a_click_opens_its_run(browser: Any, run: Callable[[str], Any]) -> None:
    run("document.querySelector('[data-picture=progress]').scrollIntoView({block: 'center'})")
    x, y = run(
        "const box = document.querySelector('[data-picture=progress] circle.finished').getBoundingClientRect();"
        "return [box.left + box.width / 2, box.top + box.height / 2]"
    )
    mouse = {"type": "mouseMoved", "x": x, "y": y}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", mouse)
    text = run("const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent")
    assert text.startswith("trial ")
    assert "learning_rate" in text
    assert "click: its run in MLflow" in text
    run("window.opened = []; window.open = (...given) => window.opened.push(given)")
    for kind in ("mousePressed", "mouseReleased"):
        click = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", click)
    assert run("return window.opened") == [[f"http://127.0.0.1:5000/{LINK}", "_blank", "noopener"]]


def test_a_range_on_a_parallel_axis_filters_the_table(browser: Any, run: Callable[[str], Any]) -> None:
    run("document.querySelector('[data-picture=parallel]').scrollIntoView({block: 'center'})")
    x, top, bottom = run(
        "const grips = document.querySelectorAll('[data-picture=parallel] .grip');"
        "const box = grips[grips.length - 1].getBoundingClientRect();"
        "return [box.left + box.width / 2, box.top + 2, box.top + box.height / 4]"
    )
    for kind, y in (("mousePressed", top), ("mouseMoved", bottom), ("mouseReleased", bottom)):
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    shown = run(
        "return [...document.querySelectorAll('table.trials tbody tr')].filter(row => !row.hidden)"
        " .map(row => Number(row.cells[2].dataset.value))"
    )
    assert 0 < len(shown) < 27
    assert min(shown) > 0.5
    assert run("return document.querySelectorAll('[data-picture=parallel] .line.out').length") == 27 - len(shown)


def test_the_matrix_shows_counts_or_rates_in_two_orders(run: Callable[[str], Any]) -> None:
    cells = "return [...document.querySelectorAll('[data-picture=confusion] .in-cell')].map(cell => cell.textContent)"
    choose = (
        "const select = document.querySelectorAll('[data-picture=confusion] select')[{0}];"
        "select.value = '{1}'; select.dispatchEvent(new Event('change'));"
    )
    counts = run(cells)
    names = run("return [...document.querySelectorAll('[data-picture=confusion] .tick')].map(tick => tick.textContent)")
    run(choose.format(0, "rates"))
    rates = run(cells)
    assert len(rates) == len(counts)
    assert rates != counts
    run(choose.format(1, "data"))
    in_order = run(
        "return [...document.querySelectorAll('[data-picture=confusion] .tick')].map(tick => tick.textContent)"
    )
    assert in_order[::2] == list(CIFAR)
    assert sorted(names) == sorted(in_order)


def test_the_keyboard_alone_reaches_all_controls(browser: Any, run: Callable[[str], Any]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    wanted = run(
        "return [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex]')]"
        " .filter(one => one.offsetParent && !one.hidden).length"
    )
    reached = set()
    for _ in range(wanted + 5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(run("const one = document.activeElement; one.dataset.reached = 'yes'; return one.tagName"))
    missed = run(
        "return [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex]')]"
        " .filter(one => one.offsetParent && !one.hidden && !one.dataset.reached)"
        " .map(one => one.outerHTML.slice(0, 90))"
    )
    assert missed == []
    assert {"A", "BUTTON", "INPUT", "SELECT", "SUMMARY"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_axe_finds_nothing_serious(browser: Any, address: str, width: int, scheme: str) -> None:
    axe = Path(needed("axe_playwright_python").__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(address)
    browser.set_script_timeout(120)
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document).then(({passes, violations}) => done([passes.length, violations"
        " .filter(one => ['serious', 'critical'].includes(one.impact))"
        " .map(one => [one.id, one.nodes.length, one.nodes[0].html.slice(0, 120)])]))"
    )
    passes, serious = found
    assert serious == []
    assert passes > 20


def test_the_surface_tells_its_prediction_under_the_pointer(browser: Any, run: Callable[[str], Any]) -> None:
    run("document.querySelector('[data-picture=surface]').scrollIntoView({block: 'center'})")
    x, y = run(
        "const box = document.querySelector('[data-picture=surface] path.area').getBoundingClientRect();"
        "return [box.left + 3, box.bottom - 3]"
    )
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    text = run("const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent")
    assert text.startswith("learning_rate 0.001\ncutout 0\npredicted ")
    assert run("return document.querySelectorAll('[data-picture=surface] .dot.top').length") <= 1


@pytest.mark.parametrize("up", ["train.batch_size", "augment.policy"])
def test_a_surface_of_choices_has_a_cell_for_each_pair(browser: Any, tmp_path: Path, up: str) -> None:
    browser.get(written(write_results(tmp_path), pages.Beside(history(surface=surface(up=up)))))
    cells = browser.execute_script("return document.querySelectorAll('[data-picture=surface] rect.area').length")
    assert cells == 25 * (3 if up == "train.batch_size" else 2)
    assert complaints(browser) == []


def test_a_search_without_a_result_has_a_page_of_its_own(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    pages.write_alone(path, "No result yet.", pages.Beside(history(is_running=True, surface=None), refresh_s=600))
    browser.get(path.as_uri())
    drawn = browser.execute_script("return document.querySelectorAll('[data-picture] svg[role=img]').length")
    assert drawn >= 6
    assert complaints(browser) == []


def test_the_page_prints_to_a_pdf(browser: Any, run: Callable[[str], Any], tmp_path: Path) -> None:
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": False})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert 4 <= pdf.count(b"/Type /Page\n") <= 24
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    size = {"width": 760, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    cut = run(
        "return [...document.querySelectorAll('table, svg')].filter(one => one.offsetParent !== null"
        " || one.tagName === 'svg').filter(one => one.getBoundingClientRect().right > innerWidth + 1)"
        " .map(one => one.getAttribute('data-name') || one.getAttribute('aria-label') || one.className)"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert cut == []


@pytest.mark.parametrize("classes", [2, 100, 300])
def test_matrices_of_any_size_are_drawn(browser: Any, tmp_path: Path, classes: int) -> None:
    project = write_results(tmp_path, tuple(f"a class {number}" for number in range(classes)), mistakes=2)
    browser.get(written(project, pages.Beside("No search.")))
    cells, labels = browser.execute_script(
        "return ['.cell', '.tick'].map(kind => document.querySelectorAll('[data-picture=confusion] ' + kind).length)"
    )
    shown = min(classes, 40)
    assert labels == 2 * shown
    assert cells >= shown
    if classes > 40:
        all_cells = browser.execute_script(
            "const select = document.querySelectorAll('[data-picture=confusion] select')[2];"
            "select.value = 'all'; select.dispatchEvent(new Event('change'));"
            "return document.querySelectorAll('[data-picture=confusion] .cell').length"
        )
        assert all_cells == np.count_nonzero(results.read(project).confusion)
    assert complaints(browser) == []


def test_two_thousand_trials_are_drawn_in_seconds(browser: Any, tmp_path: Path) -> None:
    began_s = time.monotonic()
    browser.get(written(write_results(tmp_path), pages.Beside(history(2000, epochs=6))))
    rows = "return document.querySelectorAll('table.trials tbody tr:not([hidden])').length"
    assert browser.execute_script(rows) == 200
    assert time.monotonic() - began_s < 60
    browser.execute_script(
        "[...document.querySelectorAll('#search button')].find(one => one.textContent.includes('2,000')).click()"
    )
    assert browser.execute_script(rows) == 2000
    assert complaints(browser) == []


@pytest.mark.parametrize("trials", [0, 1, 12])
def test_searches_of_few_trials_leave_no_error(browser: Any, tmp_path: Path, trials: int) -> None:
    other = pages.Beside(history(trials, epochs=1, importances={}), refresh_s=600)
    browser.get(written(write_results(tmp_path), other))
    assert complaints(browser) == []
