"""The live page in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.jobs.service.browser import Page, loopback, tab
from tests.jobs.service.by_hand import ByHand
from tests.jobs.service.served import Served, long_spec, served, small_spec
from treadle.jobs.service.states import State

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>&amp;"
FILE = MARKUP.replace("/", "")
BOARD = {
    "metric": "auc",
    "best": "logistic_regression",
    "rows": [
        {"model": "logistic_regression", "auc": 0.9957600169, "f1": None, "train_seconds": 7.4, "error": None},
        {"model": "xgboost", "auc": 0.9900360398, "f1": 0.95, "train_seconds": 6.94, "error": None},
        {"model": "knn", "auc": None, "f1": None, "train_seconds": None, "error": f"no memory {MARKUP}"},
    ],
}
MANIFEST = {"results": {"evaluate": BOARD, "explain": {"importance": {"age": 0.5, MARKUP: 0.25}}}, "warnings": [MARKUP]}


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ByHand]:
    """Of a test that is parametrized by it: with these settings."""
    opened = ByHand.open(tmp_path / "home", **getattr(request, "param", {}))
    yield opened
    opened.close()


@pytest.fixture
def origin(service: ByHand) -> Iterator[str]:
    with loopback(service.app()) as address:
        yield address


@pytest.fixture
def page(browser: Chrome, origin: str) -> Iterator[Page]:
    with tab(browser, origin) as opened:
        yield opened


def test_jobs_appear_and_change_state_without_a_reload(page: Page, service: ByHand) -> None:
    page.open()
    page.shows("main", "There is no job yet.")
    page.browser.execute_script("window.loaded = 'once'")
    job = service.add("adult")
    page.shows("tbody tr", "adult")
    assert page.text("td.c-state") == "queued"
    service.move(job, State.RUNNING, "its driver is at work")
    page.shows("td.c-state", "running")
    page.shows("td.c-reason", "its driver is at work")
    page.shows("#announcer", "adult: running")
    service.move(job, State.SUCCEEDED, "all stages are done")
    page.shows("td.c-state", "succeeded")
    assert page.browser.execute_script("return window.loaded") == "once"


@pytest.mark.slow
def test_a_row_keeps_the_focus_while_the_list_changes(page: Page, service: ByHand) -> None:
    service.add("older")
    page.open()
    page.shows("td.c-name", "older")
    page.browser.execute_script("document.querySelector('td.c-name a').focus()")
    service.add("newer")
    page.shows("td.c-name", "newer")
    assert page.browser.switch_to.active_element.text == "older"


def test_the_list_is_filtered_by_state_and_name_and_a_reload_keeps_the_filter(page: Page, service: ByHand) -> None:
    for name in ("adult", "fraud"):
        service.add(name)
        service.add(name, (State.FAILED, "no"))
    page.open()
    page.until(lambda: len(page.all("tbody tr")) == 4, "four jobs")
    assert page.text(".counts") == "4 jobs, 4 shown"
    assert page.text(".tally").split("\n") == ["2", "0", "0", "2", "0", "0", "0"]
    next(chip for chip in page.all("label.chip") if chip.text.startswith("failed")).click()
    page.until(lambda: page.text("td.c-state") == "failed\nfailed", "only those that failed")
    page.all("#filter-name")[0].send_keys("fraud")
    page.until(lambda: page.text("td.c-name") == "fraud", "only the one of that name")
    page.browser.refresh()
    page.until(lambda: page.text("td.c-name") == "fraud", "the same after a reload")
    assert page.browser.current_url.endswith("#/jobs?state=failed&name=fraud")


@pytest.mark.slow
def test_older_jobs_are_on_further_pages(page: Page, service: ByHand) -> None:
    for number in range(120):
        service.add(f"n{number}")
    page.open()
    page.until(lambda: page.text("td.c-name").startswith("n119\n"), "the newest first")
    assert len(page.all("tbody tr")) == 50
    page.button("Older").click()
    page.until(lambda: page.text("td.c-name").startswith("n69\n"), "the second page")
    page.button("Older").click()
    page.until(lambda: page.text("td.c-name").endswith("\nn0"), "the last page")
    assert not page.button("Older").is_enabled()
    page.button("Newer").click()
    page.until(lambda: page.text("td.c-name").startswith("n69\n"), "the second page again")


def test_a_job_shows_its_stages_its_log_and_at_its_end_its_leaderboard(page: Page, service: ByHand) -> None:
    job = service.add("adult", spec={"name": "adult", "metric": "auc"})
    service.move(job, State.RUNNING, "its driver is at work")
    service.say(job, "read", "started")
    service.say(job, "read", "finished", wall_seconds=2.5, peak_bytes=3 << 30)
    service.say(job, "features", "started")
    service.say(job, "features", "progress", done=3, total=8, rows=1234)
    service.log(job, b"first line\n")
    page.open()
    page.shows("td.c-name", "adult")
    page.all("td.c-name a")[0].click()
    page.shows(".stage", "finishedreadpeak 3.00 GiB2.5 s")
    page.shows(".stage", "3 of 8 partitions, 1,234 rows")
    assert [bar.get_attribute("value") for bar in page.all("progress") if bar.is_displayed()] == ["3"]
    page.shows(".log", "first line\n")
    service.log(job, "second line, \x1b[31mred\x1b[0m und süß\n".encode())
    page.shows(".log", "first line\nsecond line, red und süß\n")
    service.say(job, "features", "failed", error="KilledWorker: no memory")
    page.shows(".stage-failed", "KilledWorker: no memory")
    service.results(job, MANIFEST)
    service.move(job, State.SUCCEEDED, "all stages are done")
    page.shows(".standing", "succeeded")
    page.shows(".results .best", "logistic_regression0.99587.4")
    page.shows(".results tr", "xgboost0.99000.95006.9")
    page.shows(".features", "age0.5000")
    assert page.text(".life .state").split() == ["queued", "running", "succeeded"]
    assert page.text(".spec") == "name: adult\nmetric: auc\n"


def test_what_jobs_say_is_shown_as_text_and_never_run(page: Page, service: ByHand) -> None:
    began = (State.RUNNING, MARKUP)
    job = service.add("lawful", began, (State.FAILED, MARKUP), user=MARKUP, schedule=MARKUP, spec={MARKUP: MARKUP})
    service.rename(job, MARKUP)
    service.log(job, f"{MARKUP}\n".encode())
    service.say(job, MARKUP, "failed", error=MARKUP)
    service.results(job, MANIFEST, **{FILE: b"x"})
    page.open()
    page.shows("td.c-reason", MARKUP)
    page.all("td.c-name a")[0].click()
    for place in (
        "h1",
        ".standing",
        ".stage-name",
        ".stage-note",
        ".log",
        ".facts",
        ".features",
        ".row-error",
        ".notes",
    ):
        page.shows(place, MARKUP)
    page.shows(".spec", json.dumps(MARKUP))
    page.shows(".results td", FILE)
    time.sleep(0.5)
    assert page.all("main img, main script") == []
    assert page.browser.title == f"{MARKUP} - Treadle"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service in a process of its own, with a worker."""
    with served(tmp_path_factory.mktemp("service")) as one:
        yield one


@pytest.fixture
def real_page(browser: Chrome, real: Served) -> Iterator[Page]:
    with tab(browser, real.url) as opened:
        yield opened


@pytest.mark.slow
def test_a_real_job_is_seen_from_its_submission_to_its_results(real_page: Page, real: Served, downloads: Path) -> None:
    page = real_page
    page.open()
    page.shows("#cluster", "1 worker")
    assert re.match(r"http://127\.0\.0\.1:\d+/status", page.all("#cluster a")[0].get_attribute("href") or "")
    job = real.submit(small_spec("seen"))
    page.shows("td.c-name", "seen")
    page.all("td.c-name a")[0].click()
    page.shows(".standing", "succeeded")
    page.shows(".results .best", "decision_tree")
    manifest = real.http.get(f"/v1/jobs/{job}/manifest").json()
    best = manifest["results"]["evaluate"]["rows"][0]
    assert f"{best['accuracy']:.4f}" in page.text(".results .best")
    stages = ["cluster", *(stage["stage"] for stage in manifest["stages"])]
    assert page.text(".stage-name").split("\n") == stages
    assert set(page.text(".stage .state").split("\n")) <= {"finished", "cached"}
    page.shows(".log", "publish finished")
    assert page.text(".life .state").split() == ["queued", "running", "succeeded"]
    for name in ("manifest.json", "predictions"):
        next(link for link in page.all(".results a") if link.text == name).click()
    page.until(lambda: (downloads / "manifest.json").exists(), "the file")
    assert json.loads((downloads / "manifest.json").read_text()) == manifest
    page.until(lambda: (downloads / "predictions.arrows").exists(), "the table")
    rows = next(table["rows"] for table in manifest["tables"] if table["name"] == "predictions")
    assert pa.ipc.open_stream(downloads / "predictions.arrows").read_all().num_rows == rows


@pytest.mark.slow
def test_a_real_job_is_cancelled_from_the_page(real_page: Page, real: Served) -> None:
    page = real_page
    job = real.submit(long_spec("stopped"))
    page.open(f"#/jobs/{job}")
    page.shows(".stage-running", "train:gradient_boosting")
    page.button("Cancel").click()
    page.button("Cancel the job").click()
    page.shows(".standing", "cancelledcancelled by local")
    page.shows(".stage-stopped, .stage-failed", "train:gradient_boosting")
    assert real.job(job)["state"] == "cancelled"


def test_links_to_the_dashboard_are_addresses_of_the_web_only(page: Page) -> None:
    page.open()
    script = """
        const [address, done] = arguments;
        import("/page/dom.js").then(({ outward }) => done(outward(address, "text").nodeName));
    """
    kinds = [
        page.browser.execute_async_script(script, address)
        for address in ("http://a/", "https://a/", "javascript:alert(1)", " javascript:alert(1)", "data:text/html,x")
    ]
    assert kinds == ["A", "A", "#text", "#text", "#text"]


def test_a_job_is_cancelled_from_the_page_once_that_is_confirmed(page: Page, service: ByHand) -> None:
    job = service.add("adult")
    page.open(f"#/jobs/{job}")
    page.shows(".standing", "queued")
    page.button("Cancel").click()
    page.button("Let it go on").click()
    page.until(lambda: not page.all("dialog"), "no dialog")
    assert service.state(job) is State.QUEUED
    page.button("Cancel").click()
    page.button("Cancel the job").click()
    page.shows(".standing", "cancelledcancelled by local")
    assert service.state(job) is State.CANCELLED


def test_a_running_job_that_is_being_stopped_says_so(page: Page, service: ByHand) -> None:
    job = service.add("adult", (State.RUNNING, "its driver is at work"))
    page.open(f"#/jobs/{job}")
    page.shows(".standing", "running")
    page.button("Cancel").click()
    page.button("Cancel the job").click()
    page.shows(".buttons", "Stopping")
    page.until(lambda: not page.button("Stopping").is_enabled(), "a button that cannot be pressed")
    assert service.service.store.row(job)["cancel"] == "cancelled by local"
    service.move(job, State.CANCELLED, "cancelled by local")
    page.shows(".standing", "cancelledcancelled by local")


@pytest.mark.parametrize("fresh", [False, True])
def test_a_job_is_tried_again_from_the_page_and_its_new_attempt_is_followed(
    page: Page, service: ByHand, fresh: bool
) -> None:
    job = service.add("adult", (State.RUNNING, "its driver is at work"))
    service.say(job, "read", "failed", error="no space")
    service.move(job, State.FAILED, "the disk is full")
    page.open(f"#/jobs/{job}")
    page.shows(".stage-failed", "no space")
    page.button("Retry").click()
    if fresh:
        page.all("dialog input")[0].click()
    page.button("Try again").click()
    page.shows(".standing", "queuedtried again by local")
    assert service.service.store.row(job)["fresh"] == fresh
    service.move(job, State.RUNNING, "its driver is at work")
    service.say(job, "read", "started")
    page.until(lambda: page.text("#attempt option").split() == ["1", "2"], "both attempts")
    page.shows(".stage-running", "read")
    service.log(job, b"once more\n")
    page.shows(".log", "once more")


def test_a_refusal_of_the_service_is_said(page: Page, service: ByHand) -> None:
    job = service.add("adult")
    page.open(f"#/jobs/{job}")
    page.shows(".standing", "queued")
    page.button("Cancel").click()
    service.move(job, State.SUCCEEDED, "all stages are done")
    page.button("Cancel the job").click()
    page.shows("#notice", "there is nothing to cancel")
    page.shows(".standing", "succeeded")
    page.collect()
    page.complaints = [text for text in page.complaints if "409" not in text]


def test_streams_that_break_off_are_resumed_without_a_gap_or_a_repeat(page: Page, service: ByHand) -> None:
    job = service.add("adult")
    service.move(job, State.RUNNING, "its driver is at work")
    service.say(job, "read", "finished", wall_seconds=1)
    service.log(job, "one ü".encode()[:-1])
    page.open(f"#/jobs/{job}")
    page.shows(".stage", "read")
    page.shows(".log", "one ")
    streams = service.asked_for("/logs")
    with service.streams_end():
        page.until(lambda: len(service.asked_for("/logs")) > len(streams), "the log is asked for again")
    service.log(job, "ü".encode()[-1:] + b" two\n")
    service.say(job, "split", "finished", wall_seconds=1)
    page.shows(".stage-name", "split")
    page.shows(".log", "one ü two\n")
    assert page.text(".log") == "one ü two\n"
    resumed = [asked.headers.get("last-event-id") for asked in service.asked_for("/events")]
    assert resumed[0] is None
    assert len(resumed) > 1
    assert None not in resumed[1:]


@pytest.mark.parametrize("service", [{"max_body": 4096}], indirect=True)
def test_of_a_long_log_the_end_is_shown_and_all_can_be_saved(page: Page, service: ByHand, downloads: Path) -> None:
    job = service.add("adult", (State.SUCCEEDED, "all stages are done"))
    service.log(job, b"".join(b"line %06d\n" % number for number in range(100_000)))
    page.open(f"#/jobs/{job}")
    page.shows(".log", "line 099999\n")
    page.shows("main", "Only the end is shown.")
    shown = page.text(".log")
    assert 300_000 < len(shown) <= 400_000
    assert re.match(r"line \d{6}\n", shown)
    page.all("a[download$='.log']")[0].click()
    page.until(lambda: (downloads / f"{job}.log").exists(), "the file")
    assert (downloads / f"{job}.log").stat().st_size == 100_000 * len("line 000000\n")


@pytest.mark.parametrize("service", [{"tokens": True}], indirect=True)
def test_a_token_is_asked_for_and_kept_in_the_tab_only(page: Page, service: ByHand, downloads: Path) -> None:
    token = service.token()
    job = service.add("adult", (State.SUCCEEDED, "all stages are done"))
    service.results(job, MANIFEST, **{"notes.txt": b"hello"})
    page.open()
    page.until(lambda: page.all("#token")[0].is_displayed(), "the form")
    page.all("#token-value")[0].send_keys("wrong\n")
    page.shows("#token-why", "The token is not known")
    page.all("#token-value")[0].send_keys(f"{token}\n")
    page.shows("td.c-name", "adult")
    page.browser.refresh()
    page.shows("td.c-name", "adult")
    page.all("td.c-name a")[0].click()
    page.shows(".results", "notes.txt")
    assert {asked.headers.get("authorization") for asked in service.asked_for("/v1/jobs/")} == {f"Bearer {token}"}
    page.collect()
    assert not [address for address in page.addresses if token in address]
    assert page.browser.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
    next(link for link in page.all(".results a") if link.text == "notes.txt").click()
    page.until(lambda: [file.read_bytes() for file in downloads.glob("notes.txt")] == [b"hello"], "the file")
    page.button("Forget the token").click()
    page.until(lambda: page.all("#token")[0].is_displayed(), "the form again")
    page.collect()
    page.complaints = [text for text in page.complaints if "401" not in text]


def test_a_service_that_went_away_is_said_and_found_again(browser: Chrome, page: Page, service: ByHand) -> None:
    service.add("adult")
    page.open()
    page.shows("td.c-name", "adult")
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    page.shows("#notice", "The service does not answer. Trying again.")
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
    service.add("fraud")
    page.shows("td.c-name", "fraud")
    assert not page.all("#notice")[0].is_displayed()
    page.collect()
    page.complaints = [text for text in page.complaints if "ERR_INTERNET_DISCONNECTED" not in text]


@pytest.mark.slow
def test_nothing_is_asked_while_nobody_looks(page: Page, service: ByHand) -> None:
    job = service.add("adult")
    page.open(f"#/jobs/{job}")
    page.shows(".standing", "queued")
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    page.browser.execute_script(f"{hide} document.dispatchEvent(new Event('visibilitychange'))", True)
    time.sleep(0.5)
    before = len(service.asked)
    service.move(job, State.RUNNING, "its driver is at work")
    time.sleep(4.5)
    assert [asked.path for asked in service.asked[before:]] == []
    page.browser.execute_script(f"{hide} document.dispatchEvent(new Event('visibilitychange'))", False)
    page.shows(".standing", "running")


def test_the_page_can_be_used_by_keyboard_and_says_what_each_control_is(page: Page, service: ByHand) -> None:
    from selenium.webdriver import Keys

    job = service.add("adult")
    page.open()
    page.shows("td.c-name", "adult")
    for _ in range(20):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        if page.browser.switch_to.active_element.text == "adult":
            break
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    page.shows(".standing", "queued")
    for route in ("#/jobs", f"#/jobs/{job}"):
        page.open(route)
        page.shows("main", "adult")
        page.until(lambda: len(controls(page)) > 5, "links and buttons, as a screen reader has them")
        assert [node["role"]["value"] for node in controls(page) if not node.get("name", {}).get("value")] == []


def controls(page: Page) -> list[dict[str, Any]]:
    tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [node for node in tree if not node["ignored"] and focusable(node)]


def focusable(node: dict[str, Any]) -> bool:
    held = {part["name"]: part["value"].get("value") for part in node.get("properties", [])}
    return bool(held.get("focusable")) and node["role"]["value"] not in ("RootWebArea", "main")


@pytest.mark.parametrize("width", [360, pytest.param(768, marks=pytest.mark.slow), 1440])
def test_the_page_fits_every_width(page: Page, service: ByHand, width: int) -> None:
    began = (State.RUNNING, "")
    job = service.add("a" * 128, began, (State.FAILED, "b" * 400), spec={"name": "c" * 300})
    service.results(job, MANIFEST, **{"d" * 200: b""})
    service.say(job, "e" * 100, "failed", error="f" * 300)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.open()
    page.shows("td.c-name", "a" * 128)
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    page.open(f"#/jobs/{job}")
    page.shows(".results", "knn")
    page.shows(".stage-note", "f" * 300)
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
