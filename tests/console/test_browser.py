"""The console in a real browser: signing in and out, the overview, limits, themes, and a policy that holds."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.conftest import INSTANCE_SECRET, RunningConsole

_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", event => window.violations.push(event.violatedDirective));
"""


@pytest.fixture
def problems() -> list[str]:
    """What the browser complained about; a test takes out what it expects."""
    return []


@pytest.fixture
def page(browser: Browser, console: RunningConsole, problems: list[str]) -> Iterator[Page]:
    """A page of a new browser profile. A script error or an error on its console fails the test."""
    context = browser.new_context(base_url=console.url, viewport={"width": 1360, "height": 900}, color_scheme="light")
    context.add_init_script(_VIOLATIONS)
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert problems == []


def sign_in(page: Page, console: RunningConsole) -> None:
    page.goto("/")
    page.get_by_label("E-mail").fill(console.first.email)
    page.get_by_label("Password").fill(console.first.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()


def test_after_signing_in_the_overview_says_what_is_there(page: Page, console: RunningConsole) -> None:
    sign_in(page, console)

    expect(page.get_by_role("heading", name="default")).to_contain_text(console.first.project_id)
    expect(page.get_by_text(console.first.key[:12])).to_be_visible()
    expect(page.locator("#curl")).to_contain_text(f"curl -i {console.proxy.base_url}/chat/completions")
    expect(page.locator("#live")).to_contain_text("every proxy is in step")
    # Only a proxy and a console run here: a missing recorder is for the operator, and no outage.
    expect(page.locator("#live")).to_contain_text("▲ degraded")
    expect(page.locator("#live")).to_contain_text("recorder: not running")
    expect(page.locator("#live")).not_to_contain_text("✕")
    expect(page.get_by_role("row", name="openai")).to_contain_text("***4321")
    assert console.first.key not in page.content()
    assert INSTANCE_SECRET not in page.content()
    assert page.evaluate("window.violations") == []


def test_the_numbers_renew_themselves(page: Page, console: RunningConsole) -> None:
    sign_in(page, console)

    for _ in range(2):
        answer = console.proxy.chat(console.first.key, "Do the numbers renew themselves?", model="sim/echo")
        assert answer.status == 200

    expect(page.get_by_role("row", name="answered from the cache", exact=False).first).to_be_visible(timeout=10_000)
    expect(page.locator("#pulse")).to_have_text("● live")


def test_signing_out_ends_the_session_in_this_browser(page: Page, console: RunningConsole) -> None:
    sign_in(page, console)

    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.goto("/")
    assert page.url.endswith("/sign-in")
    assert "watchllm_session" not in {cookie["name"] for cookie in page.context.cookies()}


def test_a_theme_is_kept_and_there_from_the_first_byte(page: Page, console: RunningConsole) -> None:
    sign_in(page, console)
    light = _background(page)

    page.get_by_role("button", name="Dark").click()

    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    dark = _background(page)
    assert _brightness(light) > 0.9
    assert _brightness(dark) < 0.3
    answer = page.context.request.get("/")
    assert '<html lang="en" data-theme="dark">' in answer.text()
    page.get_by_role("button", name="System").click()
    expect(page.get_by_role("button", name="System")).to_have_attribute("aria-pressed", "true")
    assert _background(page) == light
    page.emulate_media(color_scheme="dark")
    assert _background(page) == dark


def test_a_limit_is_changed_by_its_form_and_in_force(page: Page, console: RunningConsole) -> None:
    project = console.installation.project("limited in a browser")
    sign_in(page, console)

    page.get_by_role("link", name="Limits", exact=True).first.click()
    page.get_by_role("link", name="limited in a browser").click()
    page.get_by_label("requests_per_minute").fill("1")
    page.get_by_label("allowed_models").fill("sim/*\nopenai/*")
    page.get_by_label("budget_mode").select_option("alert")
    page.get_by_role("button", name="Save limits").click()

    expect(page.get_by_role("status")).to_contain_text("✓ Saved")
    expect(page.get_by_label("requests_per_minute")).to_have_value("1")
    expect(page.get_by_role("row", name="allowed_models")).to_contain_text("sim/*, openai/*")
    expect(page.get_by_role("row", name="budget_mode")).to_contain_text("alert")
    statuses = [console.proxy.chat(project.key, "Am I limited?", model="sim/echo").status for _ in range(2)]
    assert statuses == [200, 429]
    assert page.evaluate("window.violations") == []


def test_a_wrong_limit_is_said_beside_what_was_typed(page: Page, console: RunningConsole, problems: list[str]) -> None:
    console.installation.project("wrongly limited")
    sign_in(page, console)

    page.get_by_role("link", name="Limits", exact=True).first.click()
    page.get_by_role("link", name="wrongly limited").click()
    page.get_by_label("budget_usd_day").fill("a lot")
    page.get_by_role("button", name="Save limits").click()

    expect(page.get_by_role("alert")).to_have_text("budget_usd_day=a lot: expected US dollars, 0 to 1000000")
    expect(page.get_by_label("budget_usd_day")).to_have_value("a lot")
    assert "400" in problems.pop()
    page.get_by_label("budget_usd_day").fill("2.50")
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_label("budget_usd_day")).to_have_value("2.5")
    expect(page.get_by_role("row", name="budget_usd_day")).to_contain_text("$0.00 of $2.50")


def test_an_injected_script_does_not_run(page: Page, console: RunningConsole, problems: list[str]) -> None:
    sign_in(page, console)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.injected = true";
            document.body.append(script);
        }"""
    )
    assert page.evaluate("window.injected") is None
    assert "Content Security Policy" in problems.pop()
    assert page.evaluate("window.violations") == ["script-src-elem"]


def test_it_works_without_scripts(browser: Browser, console: RunningConsole) -> None:
    context = browser.new_context(base_url=console.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.fill("#email", console.first.email)
    page.fill("#password", "not the password")
    page.click("button.primary")
    expect(page.get_by_role("alert")).to_have_text("E-mail or password is wrong.")
    page.fill("#password", console.first.password)
    page.click("button.primary")
    expect(page.get_by_text(console.first.project_id).first).to_be_visible()
    expect(page.locator("#pulse")).to_be_hidden()
    page.goto(f"/limits/projects/{console.first.project_id}")
    page.fill("#concurrent_requests", "50")
    page.click("text=Save limits")
    expect(page.get_by_role("status")).to_contain_text("✓ Saved")
    expect(page.locator("#concurrent_requests")).to_have_value("50")
    context.close()


def _background(page: Page) -> str:
    page.wait_for_load_state("load")  # Style sheets included.
    return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))


def _brightness(colour: str) -> float:
    """The lightness of `oklch(L C H)`, 0 to 1."""
    assert colour.startswith("oklch("), colour
    return float(colour.removeprefix("oklch(").split()[0])
