"""A backfill as an operator does it: open the form in a browser, fill it, submit, see it completed.

Screenshots go to the folder that SCREENSHOTS_DIR names, or to pytest's temporary one. Those in docs/images were copied
from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.deployments.chromium import chromium
from tests.deployments.site import SIMPLE_FORM, Site, landed

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def shoot(page: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    folder = Path(os.environ.get("SCREENSHOTS_DIR") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str) -> None:
        assert page.save_screenshot(folder / f"{name}.png")

    return save


def field(page: Chrome, name: str) -> WebElement:
    """The part of the form that belongs to this parameter: label, description, control."""
    label = f"//span[contains(@class, 'schema-form-property__label')][starts-with(normalize-space(), '{name}')]"
    around = f"{label}/ancestor::div[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
    return WebDriverWait(page, 30).until(lambda p: p.find_element(By.XPATH, around))


def fill(page: Chrome, name: str, text: str) -> None:
    control = field(page, name).find_element(By.CSS_SELECTOR, "textarea, input")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", control)
    control.send_keys(Keys.CONTROL, "a")
    control.send_keys(text, Keys.TAB)


def pick_day(page: Chrome, name: str, day: date) -> None:
    control = field(page, name).find_element(By.CSS_SELECTOR, "input[type=date]")
    control.send_keys(f"{day:%m%d%Y}")
    assert control.get_attribute("value") == day.isoformat()


def wait_for(page: Chrome, happened: Callable[[], bool]) -> None:
    WebDriverWait(page, 30).until(lambda _: happened(), text_of(page))


def text_of(page: Chrome) -> str:
    return page.find_element(By.TAG_NAME, "body").text


def submit(page: Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "button[type=submit]").click()


@pytest.mark.usefixtures("worker")
def test_a_backfill_from_the_form(site: Site, page: Chrome, shoot: Callable[[str], None], tmp_path: Path) -> None:
    page.get(f"{site.url}/deployments/deployment/{site.deployment('backfill/backfill')['id']}/run")

    fill(page, "dest", f"{tmp_path}/tables")
    pick_day(page, "modified_since", date.fromisoformat(SIMPLE_FORM["modified_since"]))
    fill(page, "gpu_workers", "99")
    Select(field(page, "timestamps").find_element(By.TAG_NAME, "select")).select_by_visible_text("word")
    assert "Finest times wanted." in field(page, "timestamps").text
    assert "Beam Size" in field(page, "advanced").text, "what few runs need is a group of its own"

    # A day that is left out is said beside its field, a number out of bounds in a note; no run is made.
    submit(page)
    wait_for(page, lambda: "'modified_before' is a required property" in field(page, "modified_before").text)
    pick_day(page, "modified_before", date.fromisoformat(SIMPLE_FORM["modified_before"]))
    submit(page)
    wait_for(page, lambda: "99 is greater than the maximum of 16" in text_of(page))
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", field(page, "gpu_workers"))
    shoot("form-refused")
    assert "/deployments/" in page.current_url

    for close in page.find_elements(By.XPATH, "//button[contains(., 'Close')]"):
        page.execute_script("arguments[0].click()", close)
    fill(page, "gpu_workers", "1")
    page.execute_script("arguments[0].scrollIntoView({block: 'end'})", field(page, "modified_before"))
    wait_for(page, lambda: "Error creating flow run" not in text_of(page))
    shoot("form-filled")
    submit(page)
    wait_for(page, lambda: "scheduled to start now" in text_of(page))
    view = page.find_element(By.XPATH, "//*[self::a or self::button][contains(., 'View run')]")
    page.execute_script("arguments[0].click()", view)  # an earlier note may still lie above it
    wait_for(page, lambda: "/runs/" in page.current_url)

    run = page.current_url.rsplit("/", 1)[-1].partition("?")[0]
    state = site.final_state(run)
    assert state["type"] == "COMPLETED", state
    page.refresh()
    wait_for(page, lambda: "Completed" in text_of(page))
    shoot("run-completed")
    assert [name for name, _ in landed(tmp_path / "tables")] == ["en_000.flac", "en_002.flac", "ko_000.flac"]
    assert list((tmp_path / "tables" / "words").rglob("*.parquet")), "the select said word"
    look_at_the_report(site, run, page, shoot, tmp_path / "tables")


def look_at_the_report(site: Site, run: str, page: Chrome, shoot: Callable[[str], None], dest: Path) -> None:
    """Name, summary with its plots, and the page beside the tables."""
    name = site.api("GET", f"/flow_runs/{run}")["name"]
    assert name == f"backfill {date.today()} · 3 files · auto"
    assert name in text_of(page)
    (summary,) = site.api(
        "POST",
        "/artifacts/filter",
        json={"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["nightscribe-summary"]}}},
    )
    page.get(f"{site.url}/artifacts/artifact/{summary['id']}")
    wait_for(page, lambda: "times real time" in text_of(page))
    wait_for(page, lambda: plots_drawn(page) == 2)
    shoot("run-summary")
    (report,) = (dest / "_reports").glob("*.html")
    page.get(report.as_uri())
    wait_for(page, lambda: plots_drawn(page) == 2)
    assert name in text_of(page)
    assert "3\nof 3 files landed" in text_of(page)
    shoot("run-report")
    for link in page.find_elements(By.CSS_SELECTOR, "a"):
        assert Path(unquote(urlparse(link.get_attribute("href")).path)).is_file()


def plots_drawn(page: Chrome) -> int:
    return int(
        page.execute_script(
            "return [...document.images].filter(i => i.src.startsWith('data:image/png') && i.naturalWidth > 500).length"
        )
    )


@pytest.mark.usefixtures("worker")
def test_a_mistake_reads_well_on_the_page_of_the_run(
    site: Site, page: Chrome, shoot: Callable[[str], None], tmp_path: Path
) -> None:
    parameters = {**SIMPLE_FORM, "dest": f"{tmp_path}/tables", "model": "large-v9"}
    run = site.start_run("backfill/backfill", **parameters)
    assert site.final_state(run, timeout_s=30)["type"] == "FAILED"
    page.get(f"{site.url}/runs/flow-run/{run}")
    wait_for(page, lambda: "there is no model 'large-v9'" in text_of(page))
    shoot("run-refused")
