"""What a person does with a widget, for all tests of this folder: no fixture here.

Nothing waits for a time: whoever acts waits until what was drawn has changed.
"""

import ast
import json
import re

from course_lib.plotting import COLOURS

# what a picture shows: the pixels of a canvas, or an image and the text beside it
LOOK = "(x) => x.tagName === 'CANVAS' ? x.toDataURL() : x.src + x.alt"

# In the browser's own work: each move of a slider until its picture is drawn, in ms,
# and how many moves changed nothing.
SLIDE = """async (slider, picture) => {
  const look = () => picture.toDataURL();
  const low = Number(slider.min), high = Number(slider.max), times = [];
  const many = Math.min(12, Math.round((high - low) / Number(slider.step || 1)) + 1);
  let same = 0;
  for (let i = 0; i < many; i++) {
    const before = look();
    slider.value = high - ((high - low) * (i + 0.25)) / many;
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    times.push(performance.now() - start);
    same += look() === before;
    await new Promise(requestAnimationFrame);
  }
  return { times, same };
}"""

# Where the kernel is asked: from a key on a control until another picture is drawn.
# A picture is known by its number, else as above; null when none came.
PRESS = """async (control, [selector, key]) => {
  const area = control.closest(".jp-OutputArea-output");
  const look = () => {
    const picture = area.querySelector(selector);
    return picture && (picture.dataset.frame || picture.src + picture.alt);
  };
  const codes = { ArrowLeft: 37, ArrowRight: 39 };
  const before = look(), start = performance.now();
  const drawn = new Promise((done) => {
    const watch = new MutationObserver(async () => {
      if (look() === before) return;
      watch.disconnect();
      await area.querySelector(selector).decode?.();
      done(performance.now() - start);
    });
    watch.observe(area, { subtree: true, childList: true, attributes: true });
  });
  const never = new Promise((done) => setTimeout(() => done(null), 120000));
  control.dispatchEvent(new KeyboardEvent("keydown", {
    key, code: key, keyCode: codes[key], bubbles: true, cancelable: true }));
  return await Promise.race([drawn, never]);
}"""

ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const request = { code: "", silent: true, store_history: false,
    user_expressions: { it: `__import__("json").dumps(${code})` } };
  const { it } = (await kernel.requestExecute(request).done).content.user_expressions;
  if (it.status !== "ok") throw new Error(`${it.ename}: ${it.evalue}`);
  return it.data["text/plain"];
}"""

ACTIVE = "window.jupyterapp.shell.currentWidget.content.activeCellIndex"


def look(picture):
    """What a canvas or an image shows now."""
    return picture.evaluate(LOOK)


def wait_until(page, holds):
    """Wait until `holds()`; a minute is generous on any machine."""
    for _ in range(3000):
        if holds():
            return
        page.wait_for_timeout(20)
    raise AssertionError("what was waited for did not come in a minute")


def changes(picture, act):
    """Do `act`, and wait until `picture` is another one."""
    before = look(picture)
    act()
    wait_until(picture.page, lambda: look(picture) != before)


def slide(slider, picture):
    """Times of moves in ms of a slider whose `picture` (a canvas) the browser draws."""
    moved = slider.evaluate(SLIDE, picture.element_handle())
    assert moved["same"] <= 1, "a slider moved and the picture stayed"
    return moved["times"]


def press(handle, picture, times=12):
    """Times in ms of key presses on a slider that asks the kernel for `picture`.

    `picture` is a selector within the same output. The keys go there and back.
    """
    keys = ("ArrowRight", "ArrowLeft")
    found = [handle.evaluate(PRESS, [picture, keys[i % 2]]) for i in range(times)]
    assert None not in found, "a slider moved and the picture stayed"
    return found


def ask_kernel(page, expression):
    """What a Python expression is in the kernel of the notebook, by way of JSON."""
    return json.loads(ast.literal_eval(page.evaluate(ASK, expression)))


# --- what everybody needs to be able to use it


CONTROL = r"- '?(button|slider|checkbox|radio|combobox|img|application|spinbutton)\b"
# Whether a control can be focused, and looks different then.
FOCUS = """(control) => {
  const shown = () => ["outline", "boxShadow", "border", "background"]
    .flatMap((name) => [control, control.parentElement]
      .map((x) => getComputedStyle(x)[name])).join();
  document.activeElement?.blur();
  const before = shown();
  control.focus({ focusVisible: true });
  return [document.activeElement === control, shown() !== before, control.tabIndex];
}"""
CONTROLS = (
    "button:enabled:visible, input:enabled:visible, select:enabled:visible, "
    "[role=slider]:not([disabled] *):visible, "
    "[role=application]:visible:not([aria-hidden=true])"
)
PAINTS = """(root) => [...root.querySelectorAll("svg *")].flatMap((x) => {
  const { fill, stroke, strokeWidth } = getComputedStyle(x);
  const line = ["path", "polyline", "line"].includes(x.tagName) && stroke !== "none";
  return [fill, line ? stroke : "none"];
})"""


def assert_usable(widget, *, pictures=1):
    """Each control has a name and takes the focus visibly; each picture is described.

    Names are those of the accessibility tree, which a screen reader gets. Colours of
    plots are those of the palette that colour-blind eyes can tell apart, or grey.
    """
    tree = widget.aria_snapshot()
    kinds = [line.strip() for line in tree.splitlines() if re.search(CONTROL, line)]
    nameless = [line for line in kinds if not re.search(CONTROL + ' "[^"]', line)]
    assert nameless == [], tree
    told = [line for line in kinds if re.search(r"- '?(img|application) ", line)]
    assert len(told) >= pictures, tree
    for control in widget.locator(CONTROLS).all():
        focused, seen, tab = control.evaluate(FOCUS)
        assert focused and seen, control.evaluate("(x) => x.outerHTML.slice(0, 300)")
        assert tab >= 0, control.evaluate("(x) => x.outerHTML.slice(0, 300)")
    used = {tuple(map(int, re.findall(r"\d+", x)[:3])) for x in widget.evaluate(PAINTS)}
    colours = {x for x in used if len(x) == 3 and max(x) - min(x) > 12}
    safe = {tuple(bytes.fromhex(colour[1:])) for colour in COLOURS}
    assert colours <= safe, colours - safe
