"""The GAN lab of lessons 03 and 04, and the scrubber of lesson 03, in JupyterLab."""

import pytest
from driving import (
    assert_usable,
    changes,
    look,
    press,
    wait_until,
)

PLANE = ".plane-picture"


@pytest.fixture(scope="module")
def lesson_03(open_lesson):
    return open_lesson("03")


class Driver:
    """The hands of a person on one GAN lab."""

    def __init__(self, page):
        self.page = page
        self.output = page.locator(f".jp-OutputArea-output:has({PLANE})")
        self.picture = self.output.locator(PLANE)
        wait_until(page, self.picture.is_visible)
        wait_until(page, self.alt)
        self.picture.scroll_into_view_if_needed()

    def alt(self):
        return self.picture.get_attribute("aria-label") or ""

    def button(self, name):
        return self.output.get_by_role("button", name=name)  # and its icon

    def slider(self, name):
        row = self.output.locator(".widget-hslider", has_text=name)
        return row.locator(".noUi-handle")

    def expect(self, answer):
        self.output.get_by_label(answer, exact=True).check()

    def train_until(self, holds):
        """Train, wait, pause, and wait until the last picture has come."""
        self.button("Train").click()
        wait_until(self.page, holds)
        self.pause()

    def pause(self):
        self.button("Pause").click()
        self.button("Train").wait_for()

    def stands_still(self):
        """No picture came for a while, in which training would have sent some."""
        frame = self.picture.get_attribute("data-frame")
        self.page.wait_for_timeout(500)
        return self.picture.get_attribute("data-frame") == frame

    def step(self):
        return int(self.alt().split("step ")[1].split(".")[0])


def test_a_prediction_comes_first_then_it_trains_and_tells_what_was_measured(
    lesson_03, screenshots
):
    lab = Driver(lesson_03)
    lab.output.screenshot(path=screenshots / "gan_lab_03_start.png")
    lab.button("Train").click()
    lab.output.get_by_text("First say what you expect.").wait_for()
    lab.expect("7 or 8")
    before = look(lab.picture)
    lab.button("Train").click()
    lab.output.get_by_text("Not as you expected").wait_for()
    lab.button("Train").wait_for()
    assert look(lab.picture) != before
    assert "step 1200" in lab.alt()
    lab.output.screenshot(path=screenshots / "gan_lab_03_told.png")


def test_pause_stops_the_pictures_and_every_knob_is_answered(lesson_03, note_latency):
    lab = Driver(lesson_03)
    lab.button("healthy").click()
    lab.output.get_by_text("Both learn at one rate").wait_for()
    press(lab.slider("R1 penalty"), PLANE, times=1)  # no preset now, and so no end
    lab.train_until(lambda: lab.step() >= 50)
    wait_until(lesson_03, lab.stands_still)
    times = press(lab.slider("Seed"), PLANE)
    note_latency("GAN lab, lesson 03 in JupyterLab, seed, kernel", times)
    for name in ("Learning rate D", "Learning rate G", "D steps for one", "R1 penalty"):
        times = press(lab.slider(name), PLANE, times=4)
    note_latency("GAN lab, lesson 03 in JupyterLab, R1, kernel", times)
    changes(lab.picture, lab.button("One step").click)
    lab.button("D alone").click()
    changes(lab.picture, lab.button("One step").click)
    for name, value in {
        "Loss": "Wasserstein, clipped",
        "Data": "grid",
        "Training points": "16 points",
    }.items():
        menu = lab.output.get_by_label(name, exact=True)
        changes(lab.picture, lambda menu=menu, value=value: menu.select_option(value))
    assert "Wasserstein, clipped" in lab.alt() and "9 modes" in lab.alt()
    assert len(press(lab.slider("Clip weights at"), PLANE, times=2)) == 2


def test_the_features_of_the_lessons_images_are_data_too(lesson_03, screenshots):
    lab = Driver(lesson_03)
    menu = lab.output.get_by_label("Data", exact=True)
    changes(lab.picture, lambda: menu.select_option("features of images"))
    assert "modes" not in lab.alt()  # a cloud has none
    lab.button("both").click()
    lab.train_until(lambda: lab.step() >= 30)
    lab.output.screenshot(path=screenshots / "gan_lab_03_features.png")


def test_points_are_put_by_keyboard_and_by_mouse(lesson_03, screenshots):
    lab = Driver(lesson_03)
    lab.output.get_by_label("Data", exact=True).select_option("drawn by hand")
    lab.output.get_by_text("There is nothing to learn yet").wait_for()
    board = lab.output.locator(".plane-board")
    board.focus()
    for key in ("ArrowRight", "ArrowRight", "Space", "Shift+ArrowUp", "Space"):
        lesson_03.keyboard.press(key)
    wait_until(lesson_03, lambda: lab.alt().startswith("GAN in the plane"))
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    mouse = lesson_03.mouse
    mouse.move(box["x"] + 60, box["y"] + 60)
    mouse.down()
    mouse.move(box["x"] + 300, box["y"] + 90, steps=20)
    changes(lab.picture, mouse.up)
    lab.train_until(lambda: lab.step() >= 30)
    lab.output.screenshot(path=screenshots / "gan_lab_03_drawn.png")
    changes(lab.picture, lab.button("Clear points").click)


def test_everybody_can_use_the_lab(lesson_03):
    lab = Driver(lesson_03)
    lab.button("collapse").click()
    lab.output.get_by_text("G learns ten times as fast").wait_for()
    wait_until(lesson_03, lambda: lab.alt().startswith("GAN in the plane"))
    assert_usable(lab.output, pictures=4)


def test_the_lab_of_lesson_04_shows_what_clipping_does(open_lesson, screenshots):
    page = open_lesson("04")
    lab = Driver(page)
    lab.expect("about 1")
    lab.button("Train").click()
    lab.output.get_by_text("Not as you expected").wait_for()
    lab.button("Train").wait_for()
    told = lab.output.get_by_role("status").inner_text()
    assert "The critic's slope at the samples" in told
    lab.output.screenshot(path=screenshots / "gan_lab_04.png")


# --- the scrubber

SCRUBBER = ".scrubber"


def replay(scrubber, note_latency, where):
    """Move through a recorded run by every control."""
    picture = scrubber.locator("img")
    slider = scrubber.get_by_role("slider", name="Step")
    scrubber.scroll_into_view_if_needed()
    last = int(slider.get_attribute("max"))
    assert last >= 4  # at least five frames
    slider.focus()
    changes(picture, lambda: scrubber.page.keyboard.press("Home"))
    assert slider.input_value() == "0"
    first = picture.get_attribute("alt")
    changes(picture, lambda: scrubber.page.keyboard.press("ArrowRight"))
    assert picture.get_attribute("alt") != first
    assert slider.get_attribute("aria-valuetext") in picture.get_attribute("alt")
    note_latency(f"scrubber, {where}, browser", slider.evaluate(SCRUB))
    slider.evaluate("(s) => { s.value = 0; s.dispatchEvent(new Event('input')); }")
    scrubber.get_by_role("button", name="Play").click()
    scrubber.get_by_role("button", name="Stop").wait_for()
    scrubber.get_by_role("button", name="Play").wait_for()
    assert slider.input_value() == str(last)


# Move the slider; ms until the picture of that step is decoded and can be painted.
SCRUB = """async (slider) => {
  const picture = slider.closest(".scrubber").querySelector("img"), times = [];
  for (let i = 0; i < 24; i++) {
    slider.value = (i * 7) % (Number(slider.max) + 1);
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await picture.decode();
    times.push(performance.now() - start);
  }
  return times;
}"""


def test_the_run_of_lesson_03_is_replayed(lesson_03, screenshots, note_latency):
    live, again = lesson_03.locator(SCRUBBER).all()
    # what was shown before the training began has followed it to its end
    end = again.locator("img").get_attribute("alt")
    assert live.locator("img").get_attribute("alt") == end
    assert "distance" in end and "coverage" in end
    replay(again, note_latency, "lesson 03 in JupyterLab")
    assert live.locator("img").get_attribute("alt") == end
    assert_usable(again, pictures=2)
    again.screenshot(path=screenshots / "scrubber_03_lab.png")


def test_a_picture_comes_while_the_training_still_runs(open_notebook, open_cells, lab):
    page = open_cells(
        "import pathlib, time, torch\nfrom course_lib.scrubber import Scrubber\n"
        "run = Scrubber('A run')\nrun.show_live()",
    )
    training = """import asyncio
def record(step):
    images = torch.full((8, 1, 28, 28), step / 50 - 1)
    run.record(step, images, loss_d=1 / (step + 1), loss_g=step, coverage=step)
for step in (0, 10, 20): record(step)
while not pathlib.Path("seen").exists(): time.sleep(0.05)
record(30)"""
    page.evaluate(
        """(code) => {
          const { session } = window.jupyterapp.shell.currentWidget.sessionContext;
          window.training = session.kernel.requestExecute({ code }).done;
        }""",
        training,
    )
    picture = page.locator(f"{SCRUBBER} img")
    picture.wait_for()
    wait_until(page, lambda: "step 20" in picture.get_attribute("alt"))
    slider = page.locator(f"{SCRUBBER} input")
    slider.focus()
    changes(picture, lambda: page.keyboard.press("ArrowLeft"))  # the kernel is busy
    assert "step 10: 8 images" in picture.get_attribute("alt")
    (lab.folder / "seen").touch()
    reply = page.evaluate("window.training.then((reply) => reply.content.status)")
    assert reply == "ok"
    wait_until(page, lambda: slider.get_attribute("max") == "3")
    assert "step 10" in picture.get_attribute("alt")  # it stays where the person is
    changes(picture, lambda: page.keyboard.press("End"))
    assert "step 30" in picture.get_attribute("alt")


def test_the_run_is_replayed_in_a_page_without_kernel_or_network(
    open_exported, screenshots, note_latency
):
    page = open_exported("03", color_scheme="dark")
    scrubber = page.frame_locator('iframe[title^="DCGAN"]').locator(SCRUBBER)
    scrubber.wait_for()
    replay(scrubber, note_latency, "page")
    assert_usable(scrubber, pictures=2)
    scrubber.screenshot(path=screenshots / "scrubber_03_page.png")
