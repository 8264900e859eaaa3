"""Every page of `run` with the network off: no widget is missing, none is dead.

Those that live in a page are driven in their own tests; here stand the still pictures
of those that need a kernel.
"""

import pytest

from course_lib import notebooks

LIVE = {"00": 1, "01": 1, "02": 2, "03": 2, "05": 1}  # forms that live in the page
TWINS = {  # what the still pictures say
    "03": ["GANs on a ring of eight Gaussians."],
    "04": ["GANs on a ring of eight Gaussians. clipped to death"],
    "06": ["Real images, blurred by 0.8 px, N ="],
    "07": [
        "Reader study of 20 trials: How sure are you",
        "Reader study of 20 trials: Which of the two",
    ],
}
SEEN = """() => [...document.images].map((image) =>
  [image.alt, image.complete && image.naturalWidth > 0])"""


def test_every_lesson_with_something_to_move_is_here():
    assert sorted(LIVE | TWINS) == [lesson.number for lesson in notebooks.lessons()]


@pytest.mark.parametrize("number", sorted(LIVE | TWINS))
def test_a_page_shows_all_its_pictures_and_widgets(open_exported, screenshots, number):
    page = open_exported(number)
    pictures = page.evaluate(SEEN)
    assert pictures and all(alt and drawn for alt, drawn in pictures)
    assert page.locator(".live iframe").count() == LIVE.get(number, 0)
    assert page.get_by_text("Interactive: open the notebook").count() == 0
    for k, text in enumerate(TWINS.get(number, ())):
        twin = page.locator(f'img[alt^="{text}"]')
        assert twin.count() == 1
        twin.screenshot(path=screenshots / f"twin_{number}_{k + 1}_page.png")
