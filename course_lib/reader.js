// One trial at a time, answered by keyboard alone. Nothing here knows a label: the
// model holds pixels in their shuffled order, and sends back answers and seconds.

const KEYS = {
  rating: { 1: 1, 2: 2, 3: 3, 4: 4, 5: 5 },
  "2afc": { ArrowLeft: 1, ArrowRight: 2 },
};
const PLACES = { rating: ["image"], "2afc": ["left image", "right image"] };
const HELP = {
  rating: "keys 1 to 5 answer, P pauses",
  "2afc": "arrow keys left and right answer, P pauses",
};

const painted = () =>
  new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));

function render({ model, el }) {
  const kind = model.get("kind");
  const places = PLACES[kind];
  const total = model.get("images").length / places.length;
  const done = () => model.get("answers").length;

  const buttons = model.get("choices").map((text, i) => {
    const key = kind === "rating" ? `${i + 1}` : ["\u2190", "\u2192"][i];
    const label = [make("kbd", {}, key), make("span", {}, text)];
    const button = make("button", { type: "button" }, ...label);
    button.addEventListener("click", () => answer(i + 1));
    return button;
  });
  const bar = make("progress", { max: total, "aria-label": "answered trials" });
  const count = make("span");
  const pause = make("button", { type: "button" }, "Pause");
  const stage = make("div", { class: "course-reader-stage" });
  stage.style.minHeight = `${model.get("height")}px`;
  const choices = make("div", { class: "course-reader-choices" }, ...buttons);
  const status = make("p", { role: "status" });
  const root = make(
    "div",
    {
      class: "course-reader",
      tabindex: "0",
      role: "application",
      "aria-label": `Reader study: ${model.get("question")} ${HELP[kind]}`,
      "data-lm-suppress-shortcuts": "true", // keys are the study's, not JupyterLab's
    },
    make("div", { class: "course-reader-top" }, bar, count, pause),
    make("p", { class: "course-reader-question" }, model.get("question")),
    stage,
    choices,
    status,
  );
  el.append(root);

  let running = false; // a trial is on the screen and its clock runs
  let shown = -1; // the trial that `seconds` belongs to
  let seconds = 0; // of this trial, before the last pause
  let since = 0;
  let urls = [];

  function clear() {
    urls.forEach(URL.revokeObjectURL);
    urls = [];
    stage.replaceChildren();
    running = false;
  }

  function say(text) {
    const n = done();
    bar.value = n;
    count.textContent = n < total ? `Trial ${n + 1} of ${total}` : `${total} of ${total}`;
    status.textContent = text;
    for (const part of [pause, stage, choices]) part.hidden = n === total;
    pause.textContent = running ? "Pause" : shown < 0 ? "Begin" : "Go on";
    buttons.forEach((button) => (button.disabled = !running));
  }

  async function show() {
    clear();
    const trial = done();
    if (trial === total) {
      say("All trials are answered. Thank you. The result is one button away.");
      return;
    }
    if (trial !== shown) [shown, seconds] = [trial, 0];
    const pictures = places.map((place, i) => {
      const png = toBytes(model.get("images")[trial * places.length + i]);
      const url = URL.createObjectURL(new Blob([png], { type: "image/png" }));
      urls.push(url);
      return make("img", {
        src: url,
        width: model.get("width"),
        height: model.get("height"),
        draggable: false,
        alt: `Trial ${trial + 1} of ${total}, ${place} to judge`,
      });
    });
    stage.append(...pictures);
    const mine = urls;
    await Promise.all(pictures.map((picture) => picture.decode()));
    await painted();
    if (mine !== urls) return; // paused or answered elsewhere in the meantime
    since = performance.now();
    running = true;
    say(HELP[kind]);
  }

  function answer(value) {
    if (!running) return;
    const taken = seconds + (performance.now() - since) / 1000;
    clear();
    root.focus(); // a button that was clicked is disabled now, and would lose the keys
    const rounded = Math.round(taken * 1000) / 1000;
    model.set("answers", [...model.get("answers"), [value, rounded]]);
    model.save_changes();
  }

  function toggle() {
    if (running) {
      seconds += (performance.now() - since) / 1000;
      clear();
      say("Paused: the clock stands still. Space goes on.");
    } else if (done() < total && !urls.length) {
      show();
    }
    root.focus();
  }

  function onKey(event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const value = KEYS[kind][event.key];
    const onButton = event.target.tagName === "BUTTON";
    if (value) answer(value);
    else if (event.key.toLowerCase() === "p" && running) toggle();
    else if ([" ", "Enter"].includes(event.key) && !onButton && !running) toggle();
    else return; // Tab and the rest stay the browser's
    event.preventDefault();
    event.stopPropagation();
  }

  const onHidden = () => document.hidden && running && toggle();
  root.addEventListener("keydown", onKey);
  pause.addEventListener("click", toggle);
  document.addEventListener("visibilitychange", onHidden);
  model.on("change:answers", show);
  if (done() === total) show();
  else say(`${total} trials. Click here or Tab to it, then Space begins; ${HELP[kind]}.`);

  return () => {
    clear();
    document.removeEventListener("visibilitychange", onHidden);
    model.off("change:answers", show);
  };
}

export default { render };
