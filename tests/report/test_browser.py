"""The page in a real browser: no error, no request, and everything that can be pressed works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser, browser
from tests.report.build_run import Recipe, build_run
from wsi_pipeline.report import write_report
from wsi_pipeline.rundir import RunDir

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chrome(chromium: str) -> Iterator[Browser]:
    with browser(chromium) as page:
        yield page


@pytest.fixture
def page(chrome: Browser, study: RunDir) -> Browser:
    """The report of the study, freshly opened in a desktop window."""
    chrome.prefer("light")
    chrome.open(study.report)
    return chrome


def shown_layers(page: Browser, plate: int) -> list[str]:
    layers: list[str] = page.run(
        f"[...document.querySelectorAll('#plate-{plate} .layer')]"
        ".filter(e => getComputedStyle(e).display !== 'none').map(e => e.classList[1].slice(6))"
    )
    return layers


def column(page: Browser, number: int) -> list[str]:
    texts: list[str] = page.run(
        f"[...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[{number}].textContent.trim())"
    )
    return texts


def press(page: Browser, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).click()")


def test_it_opens_without_a_complaint_and_without_a_request(page: Browser, study: RunDir) -> None:
    assert page.complaints() == []
    assert page.requests() == [study.report.as_uri()]
    assert page.run("document.querySelectorAll('main > section').length") == 12


def test_its_own_policy_stops_whatever_would_be_loaded_or_run(page: Browser, study: RunDir) -> None:
    page.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"file:///etc/hostname\">"
        '<img src="http://127.0.0.1:9/x.png"><b id=evil onclick="window.hit = 1">x</b>\');'
        "document.getElementById('evil').click();"
    )
    assert page.run("typeof window.hit") == "undefined"
    assert any("Content Security Policy" in line for line in page.complaints())


def test_the_first_screen_answers_both_questions(page: Browser) -> None:
    bottom = page.run("document.querySelector('.questions').getBoundingClientRect().bottom")
    assert bottom < 900
    words = page.run("[...document.querySelectorAll('.answer')].slice(0, 2).map(e => e.textContent).join()")
    assert words.startswith("Not measured,With ")


def test_the_switch_of_a_slide_shows_one_layer_at_a_time(page: Browser) -> None:
    assert shown_layers(page, 1) == ["difference"]
    for layer in ("prediction", "correction"):
        press(page, f'#plate-1 input[value="{layer}"]')
        assert shown_layers(page, 1) == [layer]
    press(page, '#plate-1 input[value="none"]')
    assert shown_layers(page, 1) == []
    assert shown_layers(page, 2) == ["difference"]


def test_the_switch_works_from_the_keyboard(page: Browser) -> None:
    page.run("document.querySelector('#plate-1 input:checked').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    assert shown_layers(page, 1) == ["prediction"]


def test_one_switch_turns_all_slides_and_leaves_out_those_without_the_layer(page: Browser) -> None:
    plates = page.run("document.querySelectorAll('.plate').length")
    press(page, '#all input[value="correction"]')
    layers = [shown_layers(page, plate) for plate in range(1, plates + 1)]
    assert layers.count(["correction"]) == 6
    assert layers.count(["prediction"]) == 1


def test_a_slide_that_is_not_finished_has_no_difference(page: Browser) -> None:
    labels = page.run(
        "[...document.querySelectorAll('.plate')].filter(p => p.querySelector('.state-in_progress'))"
        ".map(p => [...p.querySelectorAll('.switch span')].map(s => s.textContent).join('|')).join()"
    )
    assert labels == "Prediction|Correction so far|Slide only"


def test_a_head_of_the_table_sorts_by_number_up_and_down_with_gaps_last(page: Browser) -> None:
    heads = page.run("[...document.querySelectorAll('table.sortable thead th')].map(h => h.textContent.trim())")
    dice = next(i for i, head in enumerate(heads) if head.startswith("Dice"))
    before = column(page, dice)
    press(page, f"table.sortable thead th:nth-child({dice + 1}) button")
    values = [float(text) for text in column(page, dice) if text != "–"]
    assert values == sorted(values)
    assert column(page, dice)[-3:] == ["–"] * 3
    press(page, f"table.sortable thead th:nth-child({dice + 1}) button")
    assert [float(text) for text in column(page, dice) if text != "–"] == values[::-1]
    assert column(page, dice)[-3:] == ["–"] * 3
    assert (
        page.run(f"document.querySelectorAll('table.sortable thead th')[{dice}].getAttribute('aria-sort')")
        == "descending"
    )
    assert sorted(column(page, dice)) == sorted(before)


def test_the_slides_sort_by_name(page: Browser) -> None:
    names = column(page, 0)
    press(page, "table.sortable thead th:nth-child(1) button")
    press(page, "table.sortable thead th:nth-child(1) button")
    assert column(page, 0) == sorted(names, reverse=True)


def test_a_slide_can_be_enlarged_and_made_small_again(page: Browser) -> None:
    width = "document.querySelector('#plate-1').getBoundingClientRect().width"
    small = page.run(width)
    press(page, "#plate-1 .enlarge")
    assert page.run(width) > 2 * small
    assert page.run("document.querySelector('#plate-1 .enlarge').getAttribute('aria-pressed')") == "true"
    press(page, "#plate-1 .enlarge")
    assert page.run(width) == small


@pytest.mark.parametrize("width", [360, 768, 1024, 1920])
def test_nothing_is_wider_than_the_window(page: Browser, width: int) -> None:
    page.resize(width, 900)
    assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page_in_both_themes(page: Browser, scheme: str) -> None:
    page.prefer(scheme)
    dark = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 21, 19)"
    assert dark == (scheme == "dark")
    # The contrast of WCAG 2, from relative luminance; 4.5 is what small text needs.
    contrasts = page.run(
        """(() => {
          const rgb = (value) => {
            const probe = document.createElement('i');
            probe.style.color = value;
            document.body.append(probe);
            const found = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
            probe.remove();
            return found;
          };
          const luminance = (value) => {
            const [r, g, b] = rgb(value).map((c) => {
              const s = c / 255;
              return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const contrast = (a, b) => {
            const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
            return (high + 0.05) / (low + 0.05);
          };
          return ['--ink', '--muted', '--removed', '--added', '--accent']
            .map((name) => contrast(`var(${name})`, 'var(--paper)'))
            .concat(contrast('var(--notice-ink)', 'var(--notice)'));
        })()"""
    )
    assert min(contrasts) >= 4.5


def test_it_can_be_printed(page: Browser, tmp_path: Path) -> None:
    page.pdf(tmp_path / "report.pdf")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert len(data) > 50_000


def test_a_hostile_run_complains_no_more_than_an_honest_one(chrome: Browser, folder: Path) -> None:
    names = {0: "<img src=x onerror=alert(1)>", 1: "a'b\"c&d</title></svg><script>alert(2)</script>"}
    chrome.open(
        write_report(build_run(folder, Recipe(slides=2, names={k: v.replace("/", "∕") for k, v in names.items()})))
    )
    assert chrome.complaints() == []
    assert chrome.run("document.querySelectorAll('script').length") == 1


def test_a_run_without_any_review_opens_without_a_complaint(chrome: Browser, folder: Path) -> None:
    chrome.open(write_report(build_run(folder, Recipe(slides=1, collected=False, pictures=False))))
    assert chrome.complaints() == []
