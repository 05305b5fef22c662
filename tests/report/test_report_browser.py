"""The page as a reader meets it: opened from disk in a real Chromium."""

import os
import shutil

import pytest

from ncfair_jax.report.html import page
from ncfair_jax.report.summary import summarise_folders

SWITCHES = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium with its console and its requests recorded."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        told = "no chromium and chromedriver on the PATH; Debian: apt-get install chromium chromium-driver"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    for switch in [*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def opened(driver, runs, tmp_path_factory):
    """The report of both runs, freshly opened; (driver, URLs that were asked for, console messages)."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(summarise_folders([runs / "first", runs / "second"])), encoding="utf-8")
    driver.get("about:blank")
    driver.get_log("performance")
    driver.get(path.as_uri())
    events = [entry["message"] for entry in driver.get_log("performance")]
    requests = [event for event in events if '"Network.requestWillBeSent"' in event]
    return driver, path, requests, driver.get_log("browser")


def column(driver, title, name):
    """Texts of a column, top to bottom, without the small second lines."""
    script = """
        const table = document.querySelector(`[aria-label="${arguments[0]}"] table`);
        const heads = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());
        const place = heads.indexOf(arguments[1]);
        return [...table.tBodies[0].rows].map(row => row.cells[place].firstChild.textContent.trim());
    """
    return driver.execute_script(script, title, name)


def press(driver, title, name, key=None):
    from selenium.webdriver.common.by import By

    head = driver.find_element(By.XPATH, f"//*[@aria-label='{title}']//thead/tr/th[normalize-space()='{name}']")
    button = head.find_element(By.TAG_NAME, "button")
    button.send_keys(key) if key else button.click()
    return head.get_attribute("aria-sort")


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


def test_it_loads_without_an_error_or_a_request(opened):
    driver, path, requests, console = opened
    assert driver.title == "Report: first, second"
    assert console == []
    asked = [event for event in requests if path.as_uri() not in event]
    assert len(requests) >= 1
    assert all('"url":"data:' in event for event in asked), asked


def test_untrusted_text_is_text(opened):
    driver, *_ = opened
    assert driver.execute_script("return document.querySelectorAll('img[src=x], script').length") == 1  # our own script
    # Even if something slipped through, the policy would not let it run.
    script = (
        "window.ran = false; const s = document.createElement('script'); s.textContent = 'window.ran = true';"
        "document.body.append(s); s.remove(); return window.ran;"
    )
    assert driver.execute_script(script) is False
    driver.get_log("browser")  # the refusal is an entry of the console


def test_a_heading_sorts_numbers_as_numbers_by_mouse_and_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    driver, *_ = opened
    assert press(driver, "Summary", "first") == "ascending"
    values = [number(text) for text in column(driver, "Summary", "first") if text != "–"]
    assert len(values) > 8
    assert values == sorted(values)
    assert values != sorted(values, key=str)
    assert press(driver, "Summary", "first", Keys.ENTER) == "descending"
    assert [number(text) for text in column(driver, "Summary", "first") if text != "–"] == values[::-1]
    assert press(driver, "Summary", "About", Keys.SPACE) == "ascending"
    about = column(driver, "Summary", "About")
    assert about == sorted(about) and len(set(about)) == 3
    sorted_by = driver.execute_script("return document.querySelectorAll('[aria-label=Summary] th[aria-sort]').length")
    assert sorted_by == 1


def test_a_phone_scrolls_tables_and_not_the_page(opened):
    driver, *_ = opened
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert driver.execute_script("return window.innerWidth") == 360
        for opening in (False, True):
            driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = arguments[0])", opening)
            assert driver.execute_script("return document.documentElement.scrollWidth") == 360
        wide = "return [...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
        assert driver.execute_script(wide)
    finally:
        driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = false)")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_quoted_sentences_stay_folded_until_opened(opened):
    from selenium.webdriver.common.by import By

    driver, *_ = opened
    details = driver.find_element(By.CSS_SELECTOR, "details.quotes")
    table = details.find_element(By.TAG_NAME, "table")
    assert not table.is_displayed()
    details.find_element(By.TAG_NAME, "summary").click()
    assert table.is_displayed() and "nurse" in table.text
    assert "neither true nor anybody's opinion" in details.find_element(By.CSS_SELECTOR, ".warning").text


def test_dark_readers_get_light_letters(opened):
    driver, *_ = opened
    colours = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        style = driver.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
        colours.append([sum(int(x) for x in text[4:-1].split(",")) for text in style])
    (ink, ground), (dark_ink, dark_ground) = colours
    assert ink < 200 < 600 < ground
    assert dark_ground < 200 < 600 < dark_ink
