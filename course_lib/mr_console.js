// The MR console of lesson 00, with or without a kernel. `course_lib/mr_console.py` is
// the same in Python; a test holds the two pictures equal.

const STYLE = `
.mr { font: 13px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); max-width: 860px;
  color: var(--jp-ui-font-color1, CanvasText); box-sizing: border-box; padding: 2px; }
.mr * { box-sizing: border-box; }
.mr button { font: inherit; padding: 3px 14px; border-radius: 4px; cursor: pointer;
  border: 2px solid #8a8f96; color: inherit; background: ButtonFace; }
.mr button[aria-pressed=true] { border-color: #0072B2; font-weight: 600; }
.mr :focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.mr-row { display: flex; gap: 8px; align-items: center; margin: 6px 0; }
.mr-row span { flex: 0 0 140px; }
.mr-row input[type=range] { flex: 1 1 auto; min-width: 60px; margin: 0; accent-color: #0072B2; }
.mr-row output { flex: 0 0 48px; text-align: right; font-variant-numeric: tabular-nums; }
.mr-view, .mr-plots { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
.mr-plots { margin-top: 12px; }
.mr-plots svg { flex: 1 1 330px; max-width: 420px; }
.mr canvas { image-rendering: pixelated; display: block; border-radius: 3px; max-width: 100%; }
.mr-side { flex: 1 1 330px; max-width: 440px; }
.mr-key { display: grid; grid-template-columns: 1fr 1fr; margin: 12px 0; }
.mr-tasks { border-top: 1px solid #8a8f9666; padding-top: 8px; }
.mr-done { font-weight: 600; }
.mr [role=alert] { border-left: 4px solid #D55E00; padding: .4em .8em; margin: 6px 0;
  background: rgba(213,94,0,.12); }
`;

// S = PD (1 - exp(-TR/T1)) exp(-TE/T2), or inversion recovery with TI; times in ms
export function spinEcho([pd, t1, t2], { TR, TE, TI }) {
  const recovery = TI === null ? 1 - Math.exp(-TR / t1)
    : Math.abs(1 - 2 * Math.exp(-TI / t1) + Math.exp(-TR / t1));
  return pd * recovery * Math.exp(-TE / t2);
}

function render({ model, el }) {
  const spec = model.get("spec"), [count, high, wide] = spec.shape, size = high * wide;
  const maps = toBytes(model.get("maps"));
  const noise = new Int8Array(toBytes(model.get("noise")));
  let times = { TR: 0, TE: 0, TI: null }, chosen = "T1";
  let field = spec.reference, tissues = spec.tissues, noiseNow = spec.noise;
  const shown = spec.shown;

  // T1 grows and T2 falls with the field; signal over noise grows in proportion to it
  const tissuesAt = (tesla) => spec.tissues.map(([pd, t1, t2], i) => {
    const [exponent, loss] = spec.field_effects[i];
    return [pd, t1 * (tesla / spec.reference) ** exponent, t2 * (1 - loss * (tesla - spec.reference))];
  });
  const noiseAt = (tesla, noise) => noise * (spec.reference / tesla);

  const alertBox = make("div", { role: "alert", hidden: true });
  const say = (text) => { alertBox.hidden = !text; alertBox.textContent = text; };
  const guard = (work) => (...given) => {
    try {
      work(...given);
    } catch (error) {
      say(`${error.name}: ${error.message}`);
      throw error;
    }
  };

  const picture = make("canvas", { width: wide, height: high, role: "img", className: "mr-picture" });
  const zoom = Math.max(1, Math.round(384 / wide));
  picture.style.width = `${wide * zoom}px`;
  const plots = make("div", { className: "mr-plots" }), key = make("div", { className: "mr-key" });
  const tasks = make("div", { className: "mr-tasks", role: "status" });

  const signals = () => Object.fromEntries(shown.map((x) => [x.label, spinEcho(tissues[x.index], times)]));

  function draw(now) {
    const each = tissues.map((tissue, i) => spinEcho(tissue, times) * (i === spec.fat ? spec.fat_kept : 1));
    const white = Math.max(1e-9, 1.05 * Math.max(...Object.values(now)));
    const pen = picture.getContext("2d"), rgba = pen.createImageData(wide, high);
    for (let i = 0; i < size; i++) {
      let s = 0;
      for (let t = 0; t < count; t++) s += (maps[t * size + i] / 255) * each[t];
      const re = s + (noiseNow * noise[i]) / 32, im = (noiseNow * noise[size + i]) / 32;
      const v = Math.round(255 * Math.min(1, Math.hypot(re, im) / white));
      rgba.data[4 * i] = rgba.data[4 * i + 1] = rgba.data[4 * i + 2] = v;
      rgba.data[4 * i + 3] = 255;
    }
    pen.putImageData(rgba, 0, 0);
  }

  function panel(axis) {
    const log = axis === "TR", width = 408, height = 132, left = 8, floor = height - 34;
    const [least, greatest] = spec.ranges[axis];
    const most = axis === "TI" ? Math.min(greatest, Math.max(times.TR - times.TE, times.TI)) : greatest;
    const place = log ? Math.log10 : (v) => v, low = place(least), far = place(most);
    const X = (v) => left + ((place(v) - low) / (far - low)) * (width - 2 * left);
    const Y = (v) => floor * (1 - v / 1.05);
    const steps = Array.from({ length: 121 }, (_, i) => low + ((far - low) * i) / 120).map((v) => (log ? 10 ** v : v));
    const ticks = { TR: [100, 1000, 10000], TE: [100, 200, 300] }[axis] || [1000, 2000, 3000];
    const lines = shown.map((x) => {
      const path = steps.map((v) => `${X(v).toFixed(1)},${Y(spinEcho(tissues[x.index], { ...times, [axis]: v })).toFixed(1)}`);
      return `<polyline points="${path.join(" ")}" fill="none" stroke="${x.colour}" stroke-width="2" stroke-dasharray="${x.dash}"/>`
        + `<circle cx="${X(times[axis])}" cy="${Y(spinEcho(tissues[x.index], times))}" r="4" fill="${x.colour}"/>`;
    });
    const marks = ticks.filter((v) => v >= least && v <= most).map((v) =>
      `<text x="${v === least ? 0 : X(v).toFixed(0)}" y="${floor + 14}" text-anchor="${v === most ? "end" : v === least ? "start" : "middle"}">${v}</text>`);
    return `<svg role="img" aria-label="Signal against ${axis}, ${times[axis]} ms chosen" viewBox="0 0 ${width} ${height}" font-size="11" fill="currentColor">`
      + `<rect x="${left}" width="${width - 2 * left}" y="${Y(3 * noiseNow).toFixed(1)}" height="${(floor - Y(3 * noiseNow)).toFixed(1)}" fill-opacity="0.25"/>`
      + `<path d="M${left} 0V${floor}H${width - left}" fill="none" stroke="currentColor"/>`
      + `<path d="M${X(times[axis])} 0V${floor}" stroke="currentColor" stroke-dasharray="1 3"/>${lines.join("")}${marks.join("")}`
      + `<text x="${width / 2}" y="${height - 4}" text-anchor="middle">${axis} (ms); up: signal, 0 to 1; shaded: below 3 noise deviations</text></svg>`;
  }

  function judge(now) {
    const [csf, grey, white, lesion] = shown.map((x) => now[x.label]);
    const top = Math.max(...Object.values(now)), matter = Math.max(grey, white);
    const least = Math.max(10 * noiseNow, 0.1 * top);
    return [["CSF is black", top > least && csf < 0.04 * top],
      ["grey and white matter look the same", matter > least && Math.abs(grey - white) < 0.02 * matter],
      ["the lesion outshines all else", top > least && lesion > 1.2 * Math.max(csf, grey, white)]];
  }

  function problem() {
    if (times.TE >= times.TR) return `The echo at TE ${times.TE} ms comes after the next pulse: raise TR.`;
    if (times.TI !== null && times.TI + times.TE >= times.TR)
      return `TI and TE take ${times.TI + times.TE} ms, more than one repetition: raise TR, or lower TI.`;
    return "";
  }

  function show() {
    times = { TR: Number(knobs.TR.value), TE: Number(knobs.TE.value), TI: pulse.checked ? Number(knobs.TI.value) : null };
    knobs.TI.disabled = !pulse.checked;
    noiseNow = noiseAt(field, grain.value / 100);
    grainText.textContent = Number(grain.value).toFixed(1);
    fieldButtons.forEach(([tesla, node]) => node.setAttribute("aria-pressed", tesla === field));
    for (const [name, knob] of Object.entries(knobs)) texts[name].textContent = knob.value;
    buttons.forEach(([name, node]) => node.setAttribute("aria-pressed", name === chosen));
    say(problem());
    if (problem()) return;
    const now = signals();
    draw(now);
    plots.innerHTML = (times.TI === null ? ["TR", "TE"] : ["TE", "TI"]).map(panel).join("");
    key.innerHTML = shown.map((x) =>
      `<span><svg width="26" height="8" aria-hidden="true"><path d="M0 4H26" stroke="${x.colour}" stroke-width="3" stroke-dasharray="${x.dash}"/></svg> ${x.label} <b>${now[x.label].toFixed(3)}</b></span>`).join(" ")
      + ` <span><svg width="26" height="8" aria-hidden="true"><rect width="26" height="8" fill="currentColor" fill-opacity="0.25"/></svg> noise <b>${noiseNow.toFixed(4)}</b></span>`;
    tasks.innerHTML = judge(now).map(([task, done]) => `<div${done ? ' class="mr-done"' : ""}>${done ? "&#9745;" : "&#9744;"} ${task}</div>`).join("");
    const order = Object.entries(now).sort((a, b) => b[1] - a[1]).map(([name, v]) => `${name} ${v.toFixed(2)}`);
    picture.ariaLabel = `Simulated brain slice at ${field} T, TR ${times.TR} ms, TE ${times.TE} ms${
      times.TI === null ? "" : `, TI ${times.TI} ms`}. From bright to dark: ${order.join(", ")}; noise ${noiseNow.toFixed(4)}.`;
  }

  const knobs = {}, texts = {}, rows = [];
  for (const [name, text, step] of [["TR", "repetition", 50], ["TE", "echo", 1], ["TI", "inversion", 4]]) {
    const [min, max] = spec.ranges[name];
    knobs[name] = make("input", { type: "range", min, max, step });
    texts[name] = make("output");
    knobs[name].addEventListener("input", guard(() => { chosen = null; show(); }));
    rows.push(make("label", { className: "mr-row" }, make("span", { textContent: `${name}, ${text} (ms)` }), knobs[name], texts[name]));
  }
  const pulse = make("input", { type: "checkbox" });
  pulse.addEventListener("change", guard(() => { chosen = null; show(); }));
  rows.splice(2, 0, make("label", { className: "mr-row" }, make("span", { textContent: "Inversion pulse first" }), pulse));
  const grain = make("input", { type: "range", min: 0, max: 100 * spec.most_noise, step: 0.1, value: 100 * spec.noise });
  const grainText = make("output");
  grain.addEventListener("input", guard(show));
  rows.push(make("label", { className: "mr-row" }, make("span", { textContent: `Noise at ${spec.reference} T (%)` }), grain, grainText));
  const fieldButtons = spec.fields.map((tesla) => {
    const node = make("button", { type: "button", textContent: `${tesla} T` });
    node.addEventListener("click", guard(() => {
      [field, tissues] = [tesla, tissuesAt(tesla)];
      show();
    }));
    return [tesla, node];
  });
  const choose = (name) => {
    const [tr, te, ti] = spec.protocols[name];
    chosen = name;
    knobs.TR.value = tr;
    knobs.TE.value = te;
    pulse.checked = ti !== null;
    if (ti !== null) knobs.TI.value = ti;
    show();
  };
  const buttons = Object.keys(spec.protocols).map((name) => {
    const node = make("button", { type: "button", textContent: name });
    node.addEventListener("click", guard(() => choose(name)));
    return [name, node];
  });

  const protocols = make("div", { className: "mr-row", role: "group", ariaLabel: "Protocol" },
    make("span", { textContent: "Protocol" }), ...buttons.map(([, node]) => node));
  const strengths = make("div", { className: "mr-row", role: "group", ariaLabel: "Field strength" },
    make("span", { textContent: "Field strength" }), ...fieldButtons.map(([, node]) => node));
  const side = make("div", { className: "mr-side" }, protocols, strengths, ...rows, alertBox, key, tasks);
  const root = make("div", { className: "mr" }, make("style", { textContent: STYLE }),
    make("div", { className: "mr-view" }, picture, side), plots);
  root.dataset.lmSuppressShortcuts = "true"; // its keys are not the notebook's
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
  knobs.TI.value = spec.protocols.FLAIR[2];
  guard(() => choose("T1"))();
}

export default { render };
