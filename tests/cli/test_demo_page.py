"""What the page of `insider-otel demo --html` shows, read in a real browser as somebody sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from insider_otel.cli.demo.running import Recorder, stage
from insider_otel.cli.demo.scenarios import SCENARIOS, Scenario, scenario

from .chromium import chromium, needs_chromium
from .demo_process import NAMES, SECRETS, demo, scenes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.once, needs_chromium]

DESKTOP, PHONE = 1280, 390
DUPLICATE = (
    "This request has already been received and is being processed. "
    "Any duplicate content from the user will be ignored for the next 15 minutes."
)
LINE = re.compile(r"(?P<tree>[│├└─ ]*)(?:◆ )?(?P<name>\S.*?)\s+[█◆]+\s+(?P<time>\+?[\d.]+ m?s)(?: (?P<label>.*))?$")

# Where each mark is: its row's shape and time, and left end and width as shares of its lane.
MARKS = """rows => rows.map(row => {
    const mark = row.querySelector('.mark').getBoundingClientRect()
    const lane = row.querySelector('.lane').getBoundingClientRect()
    return {
        shape: ['bar', 'wait', 'event'].find(each => row.classList.contains(each)),
        depth: Number(getComputedStyle(row.querySelector('.name')).getPropertyValue('--depth')),
        time: row.querySelector('.time').textContent,
        left: (mark.left - lane.left) / lane.width,
        width: mark.width / lane.width,
        pixel: 1 / lane.width,
        image: getComputedStyle(row.querySelector('.mark')).backgroundImage,
    }
})"""

# The least contrast of a text with what is behind it, by the formula of WCAG, and the text.
CONTRAST = """() => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(
            each => each / 255 <= 0.04045 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor
            if (colour !== 'rgba(0, 0, 0, 0)') return colour
        }
        throw new Error('nothing is behind it')
    }
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    let worst = [21, '']
    while (texts.nextNode()) {
        const text = texts.currentNode
        if (!text.data.trim() || !text.parentElement.getClientRects().length) continue
        const [a, b] = [getComputedStyle(text.parentElement).color, behind(text.parentElement)].map(light)
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
        if (contrast < worst[0]) worst = [contrast, text.data.trim()]
    }
    return worst
}"""

# What sticks out of the window at its right.
OVERHANGING = """() => [...document.body.querySelectorAll('*')]
    .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(each => each.outerHTML.slice(0, 80))"""


@dataclass
class Shown:
    """A page in the browser.

    Attributes:
        asked: Each URL that the browser asked for.
        complaints: What it wrote to its console.
    """

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def scenario(self, name: str) -> Locator:
        return self.page.locator(f"article#{name}")

    def rows(self, name: str) -> Locator:
        return self.scenario(name).locator(".row")

    def marks(self, name: str) -> list[dict[str, Any]]:
        return list(self.rows(name).evaluate_all(MARKS))


@dataclass(frozen=True)
class Written:
    """What one run wrote: the page, and the same as text."""

    file: Path
    text: dict[str, list[str]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    file = tmp_path_factory.mktemp("page") / "report.html"
    done = demo("--html", str(file), COLUMNS="120")
    assert (done.returncode, done.stderr) == (0, "")
    return Written(file, scenes(done.stdout))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def show(browser: Browser, file: Path, **options: Any) -> Shown:
    shown = Shown(browser.new_page(**{"viewport": {"width": DESKTOP, "height": 900}, **options}))
    shown.page.on("request", lambda request: shown.asked.append(request.url))
    shown.page.on("console", lambda message: shown.complaints.append(message.text))
    shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    shown.page.goto(file.as_uri())
    return shown


@pytest.fixture(scope="module")
def shown(browser: Browser, written: Written) -> Shown:
    return show(browser, written.file)


# -------------------------------------------------------------------------------------------- what it says


def test_each_scenario_has_its_title_its_bare_status_and_what_it_was(shown: Shown, written: Written) -> None:
    assert shown.page.locator("h1").inner_text() == f"{len(SCENARIOS)} ways a call to Insider can go"
    assert shown.page.locator("article").evaluate_all("all => all.map(each => each.id)") == NAMES
    for each in SCENARIOS:
        text = " ".join(" ".join(written.text[each.name]).split())
        scene = shown.scenario(each.name)
        assert scene.locator("h2").inner_text() == each.title
        bare, outcome = scene.locator(".said").all_inner_texts()
        assert f"without {bare}. {each.impression}" in text
        assert f"outcome {outcome[0].lower()}{outcome[1:]}. Category" in text
        assert scene.locator(".story").nth(0).locator("p").nth(1).inner_text() == each.impression


@pytest.mark.parametrize("name", NAMES)
def test_the_waterfall_is_that_of_the_terminal(name: str, shown: Shown, written: Written) -> None:
    lines = [match for line in written.text[name] if (match := LINE.match(line))]
    told = [(len(line["tree"]) // 3, line["name"], line["time"], line["label"] or "") for line in lines]
    rows = shown.rows(name).evaluate_all(
        """rows => rows.map(row => [
            Number(getComputedStyle(row.querySelector('.name')).getPropertyValue('--depth')),
            row.querySelector('code').innerText,
            row.querySelector('.time').innerText,
            row.querySelector('.label').innerText.replace(/ *error$/, ''),
        ])"""
    )
    assert len(told) > 2
    assert [tuple(row) for row in rows] == told


def test_spans_have_their_kind_and_those_that_failed_say_so(shown: Shown) -> None:
    rows = shown.rows("lost-records")
    assert rows.locator(".kind").all_inner_texts() == ["server", "internal", "client"]
    assert rows.locator(".label").all_inner_texts()[1].endswith("2 records lost error")
    assert shown.rows("success").locator(".error").count() == 0
    assert shown.rows("hidden-rate-limit").locator(".kind").all_inner_texts().count("event") == 2


@pytest.mark.parametrize(
    ("name", "chips"),
    [
        ("success", ["outcome succeeded", "category success", "fault none", "retry never"]),
        ("otp-typo", ["outcome failed", "category verification", "fault none", "retry never"]),
        ("lost-records", ["outcome partly_failed", "category partial_failure", "fault caller", "retry never"]),
        ("wrong-key", ["outcome failed", "category authentication", "fault caller", "retry never"]),
    ],
)
def test_chips_have_the_words_to_query_for(name: str, chips: list[str], shown: Shown) -> None:
    assert shown.scenario(name).locator(".told .chip").all_inner_texts() == chips


@pytest.mark.parametrize(
    ("name", "words"),
    [("success", "Insider has it"), ("handed-over", "kept for later"), ("wrong-key", "yours to mend")],
)
def test_the_legend_has_the_colour_of_each_outcome(name: str, words: str, shown: Shown) -> None:
    swatch = shown.page.locator(".legend li").filter(has_text=words).locator(".swatch")
    colour = swatch.evaluate("each => getComputedStyle(each).backgroundColor")
    dot = shown.page.locator("nav tr").filter(has=shown.page.locator(f"a[href='#{name}']")).locator(".result")
    assert dot.evaluate("each => getComputedStyle(each, '::before').backgroundColor") == colour
    others = shown.page.locator(".legend .swatch:not(.wait)").evaluate_all(
        "all => all.map(each => getComputedStyle(each).backgroundColor)"
    )
    assert others.count(colour) == 1, "no two things have one colour"


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("quick-retry", [("503", "and no message", "unavailable"), ("200", "and no message", "success")]),
        (
            "hidden-rate-limit",
            [
                (
                    "403",
                    "Too many attempts, please slow down the request. 30 Requests/minute is allowed.",
                    "rate_limit",
                ),
                ("200", "and no message", "success"),
            ],
        ),
        (
            "duplicate-window",
            [
                ("no answer", "", "timeout"),
                (
                    "202",
                    DUPLICATE,
                    "duplicate",
                ),
            ],
        ),
        ("permanent-500", [("500", "channel already exists", "conflict")]),
        ("wrong-key", [("400", "No Partner Found With Api Key.", "authentication")]),
        ("held-back", []),
    ],
)
def test_it_tells_what_insider_really_said_to_each_attempt(
    name: str, answers: list[tuple[str, str, str]], shown: Shown
) -> None:
    told = (
        shown.scenario(name)
        .locator(".answers li")
        .evaluate_all(
            """all => all.map(each => [
            each.querySelector('.status').innerText,
            (each.querySelector('q') || each.querySelector('.silent') || {innerText: ''}).innerText,
            each.querySelector('.chip').innerText.replace('category ', ''),
        ])"""
        )
    )
    assert [tuple(each) for each in told] == answers


def test_the_overview_leads_to_each_scenario(shown: Shown) -> None:
    links = shown.page.locator("nav a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    assert links == [f"#{name}" for name in NAMES]
    assert "failed authentication" in shown.page.locator("nav tr").last.inner_text()


# ------------------------------------------------------------------------------------------- what it draws


def nanoseconds(time: str) -> float:
    number, unit = time.removeprefix("+").split()
    return float(number) * {"ms": 1e6, "s": 1e9}[unit]


def rounding(time: str) -> float:
    """How far a time that is written may be from the true one, in nanoseconds."""
    number, unit = time.split()
    decimals = len(number.partition(".")[2])
    return nanoseconds(f"0.5 {unit}") / 10.0**decimals


@pytest.mark.parametrize("name", NAMES)
def test_bars_begin_and_last_as_their_spans_did(name: str, shown: Shown) -> None:
    """As far as the rounded times that are written beside them tell."""
    root, *marks = shown.marks(name)
    assert (root["shape"], root["left"]) == ("bar", 0)
    # A delivery by the outbox goes on when the page is done.
    outlives = scenario(name).outbox
    assert root["width"] < 1 if outlives else root["width"] == 1
    total = nanoseconds(root["time"]) / root["width"]
    call = marks[0]
    for mark in marks:
        slack = 4 * mark["pixel"] + (rounding(mark["time"]) + rounding(root["time"])) / total
        if mark["shape"] == "event":
            middle = mark["left"] + mark["width"] / 2
            assert middle == pytest.approx(call["left"] + nanoseconds(mark["time"]) / total, abs=slack), mark
        else:
            assert mark["width"] == pytest.approx(nanoseconds(mark["time"]) / total, abs=slack), mark
            assert mark["left"] >= call["left"] - slack, mark
            assert mark["left"] + mark["width"] <= (1 if outlives else call["left"] + call["width"]) + slack, mark


def test_a_retry_begins_where_its_wait_ends(shown: Shown) -> None:
    _, _, first, _, wait, second = shown.marks("quick-retry")
    assert first["left"] + first["width"] <= wait["left"] + 4 * wait["pixel"]
    assert second["left"] >= wait["left"] + wait["width"] - 4 * wait["pixel"]


def test_waits_and_events_do_not_look_like_bars(shown: Shown) -> None:
    marks = [mark for name in NAMES for mark in shown.marks(name)]
    assert {mark["shape"] for mark in marks if "gradient" in mark["image"]} == {"wait"}
    assert {mark["image"] for mark in marks if mark["shape"] != "wait"} == {"none"}
    turned = (
        shown.rows("quick-retry")
        .locator(".mark")
        .evaluate_all("all => all.map(each => getComputedStyle(each).transform !== 'none')")
    )
    assert turned == [False, False, False, True, False, False]


def test_the_times_above_the_bars_are_in_their_places(shown: Shown) -> None:
    root_time = shown.marks("duplicate-window")[0]["time"]
    total = nanoseconds(root_time)
    ticks = (
        shown.scenario("duplicate-window")
        .locator(".tick")
        .evaluate_all("all => all.map(each => [each.innerText, parseFloat(each.style.left) / 100])")
    )
    assert ticks[0] == ["0", 0]
    assert 3 <= len(ticks) <= 6
    for text, left in ticks[1:]:
        assert left == pytest.approx(nanoseconds(text) / total, abs=0.01 + 2 * rounding(root_time) / total)


# ------------------------------------------------------------------------------------------------ how to use it


def test_attributes_are_folded_away_and_the_keyboard_unfolds_them(browser: Browser, written: Written) -> None:
    shown = show(browser, written.file)
    attempt = shown.rows("quick-retry").nth(2)
    assert not attempt.locator(".facts").is_visible()
    attempt.locator("summary").focus()
    shown.page.keyboard.press("Enter")
    assert attempt.locator(".facts p").inner_text().startswith("Client span, status error, at ")
    facts = dict(zip(attempt.locator("dt").all_inner_texts(), attempt.locator("dd").all_inner_texts(), strict=True))
    assert facts["insider.status.category"] == "unavailable"
    assert facts["http.response.status_code"] == "503"
    assert facts["url.full"].endswith("/api/user/v1/upsert")
    shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("Space")
    event = shown.rows("quick-retry").nth(3)
    assert event.locator("dt").all_inner_texts() == [
        "insider.status.category",
        "insider.wait.ms",
        "insider.wait.reason",
        "insider.wait.source",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_it_can_be_read(browser: Browser, written: Written, width: int, scheme: str) -> None:
    """Nothing sticks out, and every text has the contrast that WCAG asks for (AA), folded away or not."""
    shown = show(browser, written.file, viewport={"width": width, "height": 900}, color_scheme=scheme)
    shown.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert shown.page.evaluate(OVERHANGING) == []
    contrast, text = shown.page.evaluate(CONTRAST)
    assert contrast >= 4.5, text
    background = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 3 * 128) == (scheme == "light")


def test_it_is_one_file_that_asks_nothing_of_the_network(browser: Browser, written: Written) -> None:
    shown = show(browser, written.file)
    shown.page.locator("nav a").first.click()
    assert {url.partition("#")[0] for url in shown.asked} == {written.file.as_uri()}
    assert shown.complaints == []
    assert shown.page.locator("script, link, img, iframe, object, embed, [src], [srcset]").count() == 0
    outward = shown.page.locator("[href]:not([href^='#'])")
    assert outward.count() == 0


def test_it_forbids_itself_what_it_does_not_need(browser: Browser, written: Written, tmp_path: Path) -> None:
    """Were a script or a picture to get in, the browser would not run or fetch it."""
    page = written.file.read_text("utf-8")
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(
        page.replace("<h1>", "<script>document.title = 'run'</script><img src='http://127.0.0.1:9/'><h1>"), "utf-8"
    )
    shown = show(browser, spoilt)
    assert shown.page.title() == "insider-otel demo"
    assert len(shown.complaints) >= 2
    assert all("Content Security Policy" in each for each in shown.complaints)


def test_it_prints_without_its_folds(browser: Browser, written: Written) -> None:
    shown = show(browser, written.file, color_scheme="dark")
    shown.page.emulate_media(media="print")
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.page.evaluate("getComputedStyle(document.querySelector('.name'), '::before').display") == "none"
    assert shown.page.pdf(format="A4").startswith(b"%PDF")


# ----------------------------------------------------------------------------------------------------- safety


def test_it_shows_no_secret_and_no_personal_datum(shown: Shown, written: Written) -> None:
    everything = (written.file.read_text("utf-8") + shown.page.locator("body").inner_text()).lower()
    assert [secret for secret in SECRETS if secret in everything] == []


def test_what_looks_like_html_is_shown_and_not_obeyed(browser: Browser, tmp_path: Path) -> None:
    from insider_otel.cli.demo.report import page

    hostile = "<script>document.title='run'</script>\"'&amp;"
    route = "GET /<img/src=x>\"'&lt;"
    scenario = Scenario("hostile", hostile, route, "user.upsert", hostile, note=hostile)
    with stage(Recorder()) as set_stage:
        played = list(set_stage.play([scenario]))
    file = tmp_path / "hostile.html"
    file.write_text(page(played, hostile), "utf-8")
    shown = show(browser, file)
    assert shown.page.locator("h1").inner_text() == "One way a call to Insider can go"
    assert shown.page.locator("h2").inner_text() == hostile
    assert shown.rows("hostile").locator("code").first.inner_text() == route
    assert shown.page.locator(".note").inner_text() == hostile
    assert hostile in shown.page.locator("footer").inner_text()
    assert shown.page.locator("script, img").count() == 0
    assert (shown.page.title(), shown.complaints) == ("insider-otel demo", [])
