// A training run, frame by frame: a slider, the pictures of that step, the curves.
// Runs in Jupyter through anywidget, and in a page that has `state` and no kernel.

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"];
const DASHES = ["", "6 3", "2 2", "9 3 2 3"];
const SVG = "http://www.w3.org/2000/svg";

function draw(parent, tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

const shown = (value) => (value === null ? "none" : String(Number(value.toPrecision(3))));

// One small plot: the curves of `names` over the steps, and a line that marks a step.
function plot(title, names, state) {
  const [width, height, edge, left] = [250, 78, 4, 40];
  const values = names.flatMap((name) => state.curves[name]).filter((v) => v !== null);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [state.steps[0], state.steps[state.steps.length - 1]];
  const x = (step) => left + ((step - first) / Math.max(last - first, 1)) * (width - left - edge);
  const y = (v) => height - edge - ((v - low) / (high - low || 1)) * (height - 2 * edge);
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ width, height, role: "img" }))
    svg.setAttribute(name, value);
  svg.setAttribute(
    "aria-label",
    `${title} against the step, from ${shown(low)} to ${shown(high)}`,
  );
  draw(svg, "path", {
    d: `M${left} 0V${height - edge}H${width}`,
    fill: "none",
    stroke: "currentColor",
    opacity: 0.4,
  });
  for (const [value, at] of [[high, 9], [low, height - edge]]) {
    const place = { x: left - 4, y: at, "text-anchor": "end" };
    const text = draw(svg, "text", { ...place, "font-size": 10, fill: "currentColor" });
    text.textContent = shown(value);
  }
  names.forEach((name, k) => {
    const line = state.curves[name]
      .map((v, i) => (v === null ? "" : `${x(state.steps[i]).toFixed(1)},${y(v).toFixed(1)}`))
      .join(" ");
    draw(svg, "polyline", {
      points: line,
      fill: "none",
      stroke: COLOURS[k % 4],
      "stroke-width": 2,
      "stroke-dasharray": DASHES[k % 4],
    });
  });
  const mark = draw(svg, "path", { stroke: "currentColor", "stroke-width": 1.5 });
  const text = make("div");
  const at = (i) => {
    mark.setAttribute("d", `M${x(state.steps[i]).toFixed(1)} 0V${height}`);
    text.replaceChildren(`${title.replaceAll("_", " ")}: `);
    names.forEach((name, k) => {
      const label = names.length > 1 ? `${name.slice(name.indexOf("_") + 1)} ` : "";
      const value = make("b", {
        textContent: `${label}${shown(state.curves[name][i])}`.replaceAll("_", " "),
      });
      // as its line; text in these colours would be hard to read on black
      value.style.borderBottom = `2px ${DASHES[k % 4] ? "dashed" : "solid"} ${COLOURS[k % 4]}`;
      text.append(value, "  ");
    });
  };
  return { element: make("div", {}, text, svg), at };
}

function render({ model, el }) {
  const root = make("div", { className: "scrubber" });
  root.style.cssText = "font:13px/1.4 system-ui,sans-serif;max-width:800px";
  // The notebook's own shortcuts must not take the arrow keys.
  root.dataset.lmSuppressShortcuts = "true";
  const title = make("div");
  title.style.fontWeight = "bold";
  const picture = make("img", { decoding: "sync" });
  picture.style.cssText = "image-rendering:pixelated;display:block;margin:4px 0;max-width:100%";
  const slider = make("input", { type: "range", min: 0, step: 1 });
  slider.style.cssText = "flex:1;min-width:160px;accent-color:#0072B2";
  const label = make("label", {}, "Step ");
  label.style.cssText = "display:flex;gap:8px;align-items:center;flex:1";
  const number = make("output");
  number.style.cssText = "min-width:4em;font-variant-numeric:tabular-nums";
  label.append(slider, number);
  const play = make("button", { type: "button", textContent: "Play" });
  play.style.cssText = "min-width:64px;padding:3px 10px;font:inherit;cursor:pointer";
  play.style.cssText += ";border:2px solid #8a8f96;border-radius:4px";
  const row = make("div", {}, play, label);
  row.style.cssText = "display:flex;gap:12px;align-items:center";
  const plots = make("div");
  plots.style.cssText = "display:flex;flex-wrap:wrap;gap:8px 16px;margin-top:6px";
  root.append(title, picture, row, plots);
  el.append(root);

  let state = null;
  let panels = [];
  let timer = null;

  function show(i) {
    slider.value = i;
    const step = state.steps[i];
    const numbers = Object.entries(state.curves)
      .filter(([, values]) => values[i] !== null)
      .map(([name, values]) => `${name.replaceAll("_", " ")} ${shown(values[i])}`);
    picture.src = `data:image/png;base64,${state.frames[i]}`;
    picture.alt = `${state.title}, step ${step}: ${state.count} images. ${numbers.join(", ")}`;
    number.textContent = step;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    panels.forEach((panel) => panel.at(i));
  }

  function load() {
    const followed = state === null || Number(slider.value) === state.steps.length - 1;
    const before = state && state.steps[Number(slider.value)];
    state = model.get("state");
    root.hidden = state.steps.length === 0;
    if (root.hidden) {
      state = null;
      return;
    }
    title.textContent = state.title;
    picture.width = state.width;
    slider.max = state.steps.length - 1;
    panels = Object.entries(state.panels).map(([name, names]) => plot(name, names, state));
    plots.replaceChildren(...panels.map((panel) => panel.element));
    const same = state.steps.findIndex((step) => step >= before);
    show(followed || same < 0 ? state.steps.length - 1 : same);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  play.addEventListener("click", () => {
    if (timer) return stop();
    let i = Number(slider.value);
    if (i >= state.steps.length - 1) i = -1;
    play.textContent = "Stop";
    timer = setInterval(() => {
      i = Math.min(i + 1, state.steps.length - 1);
      show(i);
      if (i === state.steps.length - 1) stop();
    }, 250);
  });
  root.addEventListener("keydown", (event) => event.stopPropagation());
  model.on("change:state", load);
  load();
  return () => {
    stop();
    model.off("change:state", load);
  };
}

export default { render };
