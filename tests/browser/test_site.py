"""The web site in a browser, from the disk, with the network off."""

import re

import pytest

from course_lib import website


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site of this repository."""
    folder = tmp_path_factory.mktemp("site")
    website.build_site(folder, address="someone/course")
    return folder


@pytest.mark.parametrize("width", [390, 1024, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_every_screen_without_errors(site, chromium, width, scheme):
    size = {"width": width, "height": 900}
    context = chromium.new_context(viewport=size, color_scheme=scheme, offline=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    for path in (site / "index.html", *sorted(site.glob("0[12]_*.html"))):
        page.goto(path.as_uri())
        wider = "document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(wider) <= 0, path.name
        one = "[...document.querySelectorAll('.contents')].filter(x => x.offsetWidth)"
        assert path.stem == "index" or page.evaluate(f"{one}.length") == 1
        broken = "[...document.images].filter(i => !i.naturalWidth).length"
        assert page.evaluate(broken) == 0
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        bright = sum(map(int, re.findall(r"\d+", paper)[:3])) > 380
        assert bright == (scheme == "light")
    context.close()
    assert wrong == []


def test_search_finds_and_leads_to_the_section_by_keyboard(site, chromium):
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("posterior collapse")
    assert page.locator("#found li").count() > 0
    assert "found" in page.locator("#count").inner_text()
    assert page.locator("#found mark").first.inner_text().lower() in (
        "posterior",
        "collapse",
    )
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/02_variational_autoencoder.html*")
    page.locator("#search").fill("nosuchword")
    assert page.locator("#count").inner_text() == "No sections found"
    page.locator("#search").fill("<img src=x onerror=alert(1)>")  # text, never HTML
    assert page.locator("#found img").count() == 0
    page.keyboard.press("Escape")
    assert not page.locator("#found").is_visible()
    context.close()


def test_print_is_dark_on_white_and_without_the_bar(site, chromium):
    context = chromium.new_context(color_scheme="dark", offline=True)
    page = context.new_page()
    page.goto((site / "01_autoencoder.html").as_uri())
    page.emulate_media(media="print")
    colour = "getComputedStyle(document.querySelector('.highlight pre'))"
    shown = page.evaluate(f"{colour}.backgroundColor")
    assert sum(map(int, re.findall(r"\d+", shown)[:3])) > 600
    assert not page.locator("#search").is_visible()
    context.close()
