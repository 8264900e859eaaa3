// The latent explorer: a decoder that runs in the browser, and what a person moves.
// One ES module for JupyterLab (through anywidget) and for a page without a kernel.
// It loads nothing. `course_lib/browser_model.py` says what the bytes mean.

const ACTIVATIONS = {
  relu: () => (v) => (v > 0 ? v : 0),
  leaky_relu: (layer) => (v) => (v > 0 ? v : layer.slope * v),
  silu: () => (v) => v / (1 + Math.exp(-v)),
  tanh: () => Math.tanh,
  sigmoid: () => (v) => 1 / (1 + Math.exp(-v)),
};

function dot(x, at, w, start, n) {
  let a = 0, b = 0, c = 0, d = 0, i = 0;
  for (; i + 3 < n; i += 4) {
    a += x[at + i] * w[start + i];
    b += x[at + i + 1] * w[start + i + 1];
    c += x[at + i + 2] * w[start + i + 2];
    d += x[at + i + 3] * w[start + i + 3];
  }
  for (; i < n; i++) a += x[at + i] * w[start + i];
  return a + b + c + d;
}

function linear(layer, buffer, shape) {
  const [out] = layer.shape, [inputs] = shape;
  const rows = new Int8Array(buffer, layer.weight_at, out * inputs);
  const scale = new Float32Array(buffer, layer.scale_at, out);
  const bias = new Float32Array(buffer, layer.bias_at, out);
  const w = Float32Array.from(rows, (v, i) => v * scale[Math.floor(i / inputs)]);
  const y = new Float32Array(out);
  return (x) => {
    for (let o = 0; o < out; o++) y[o] = bias[o] + dot(x, 0, w, o * inputs, inputs);
    return y;
  };
}

// From here on a map is (row, column, channel), so that channels lie side by side.
function unflatten(layer) {
  const [c, h, w] = layer.to, y = new Float32Array(c * h * w);
  return (x) => {
    for (let k = 0; k < c; k++)
      for (let i = 0; i < h * w; i++) y[i * c + k] = x[k * h * w + i];
    return y;
  };
}

// Each input pixel adds its kernel to the output; what falls outside is padding.
function convTranspose(layer, buffer, shape) {
  const { kernel: k, stride: s, padding: p } = layer;
  const [c, h, wide] = shape, [out, H, W] = layer.shape;
  const raw = new Int8Array(buffer, layer.weight_at, out * c * k * k);
  const scale = new Float32Array(buffer, layer.scale_at, out);
  const bias = new Float32Array(buffer, layer.bias_at, out);
  const w = new Float32Array(raw.length); // (out, in, k, k) -> (k, k, out, in)
  for (let o = 0; o < out; o++)
    for (let i = 0; i < c; i++)
      for (let t = 0; t < k * k; t++)
        w[(t * out + o) * c + i] = raw[(o * c + i) * k * k + t] * scale[o];
  const y = new Float32Array(out * H * W);
  return (x) => {
    for (let i = 0; i < y.length; i++) y[i] = bias[i % out];
    for (let row = 0; row < h; row++)
      for (let col = 0; col < wide; col++) {
        const from = (row * wide + col) * c;
        for (let i = 0; i < k; i++) {
          const Y = row * s - p + i;
          if (Y < 0 || Y >= H) continue;
          for (let j = 0; j < k; j++) {
            const X = col * s - p + j;
            if (X < 0 || X >= W) continue;
            const to = (Y * W + X) * out, first = (i * k + j) * out;
            for (let o = 0; o < out; o++) y[to + o] += dot(x, from, w, (first + o) * c, c);
          }
        }
      }
    return y;
  };
}

// (description, bytes) -> function from a code to a picture (row, column, channel).
export function makeDecoder(description, bytes) {
  const buffer = toBytes(bytes).slice().buffer, steps = [];  // a copy is aligned
  let shape = [description.latent_dim];
  for (const layer of description.layers) {
    if (layer.op === "linear") steps.push(linear(layer, buffer, shape));
    else if (layer.op === "unflatten") steps.push(unflatten(layer));
    else if (layer.op === "conv_transpose") steps.push(convTranspose(layer, buffer, shape));
    else if (layer.op in ACTIVATIONS) {
      const f = ACTIVATIONS[layer.op](layer);
      steps.push((x) => {
        for (let i = 0; i < x.length; i++) x[i] = f(x[i]);
        return x;
      });
    } else throw new Error(`this page cannot run a layer ${layer.op}`);
    shape = layer.shape;
  }
  return (code) => {
    let x = Float32Array.from(code);
    for (const step of steps) x = step(x);
    return x;
  };
}

// ------------------------------------------------------------------ ways between codes

const norm = (z) => Math.hypot(...z);

export function lerp(a, b, t) {
  return a.map((v, i) => (1 - t) * v + t * b[i]);
}

export function slerp(a, b, t) {
  const cosine = a.reduce((sum, v, i) => sum + v * b[i], 0) / (norm(a) * norm(b) || 1);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine))), sine = Math.sin(angle);
  if (sine < 1e-4) return lerp(a, b, t);
  const from = Math.sin((1 - t) * angle) / sine, to = Math.sin(t * angle) / sine;
  return a.map((v, i) => from * v + to * b[i]);
}

const WAYS = { line: lerp, arc: slerp };

// ------------------------------------------------------------------ what is on the page

const STYLE = `
.lx { font: 13px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); max-width: 860px;
  color: var(--jp-ui-font-color1, CanvasText); box-sizing: border-box; padding: 2px; }
.lx * { box-sizing: border-box; }
.lx-top { display: flex; flex-wrap: wrap; gap: 18px; align-items: flex-start; }
.lx figure { margin: 0; }
.lx figcaption, .lx-quiet { color: var(--jp-ui-font-color2, inherit); font-size: 12px; }
.lx canvas { display: block; image-rendering: pixelated; border-radius: 3px; }
.lx-map { cursor: crosshair; touch-action: none; border: 1px solid #8a8f96; }
.lx-seen { flex: 1 1 300px; min-width: 250px; }
.lx-pictures { display: flex; gap: 12px; align-items: flex-end; }
.lx-buttons { display: flex; flex-wrap: wrap; gap: 6px; margin: 8px 0; }
.lx button { font: inherit; padding: 3px 10px; border-radius: 4px; cursor: pointer;
  border: 1px solid #8a8f96; color: inherit; background: var(--jp-layout-color2, ButtonFace); }
.lx button:hover { border-color: #0072B2; }
.lx :focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.lx-sliders { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr));
  gap: 4px 18px; }
.lx-sliders label { display: grid; grid-template-columns: 1fr 44px; column-gap: 8px; }
.lx-sliders input { grid-column: 1; margin: 0; }
.lx-sliders output { font-variant-numeric: tabular-nums; text-align: right; }
.lx input[type=range] { width: 100%; accent-color: #0072B2; }
.lx fieldset { border: 1px solid #b9bdc3; border-radius: 4px; margin: 10px 0 0; padding: 2px 12px 8px; }
.lx legend { font-weight: 600; padding: 0 4px; }
.lx-walk { display: flex; flex-wrap: wrap; gap: 10px 18px; align-items: flex-end; }
.lx-strips { flex: 1 1 380px; min-width: 260px; }
.lx-strip { display: flex; align-items: center; gap: 8px; margin: 3px 0; }
.lx-strip span { flex: 0 0 34px; }
.lx-strip canvas { cursor: pointer; flex: 1 1 auto; min-width: 0; width: 100%; height: auto; }
.lx-row { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; }
.lx-row input[type=radio], .lx-row input[type=checkbox] { margin: 0 4px 0 0; accent-color: #0072B2; }
.lx-t { flex: 1 1 220px; display: flex; gap: 8px; align-items: center; }
.lx [role=alert] { border-left: 4px solid #D55E00; padding: .4em .8em; margin: 6px 0;
  background: rgba(213,94,0,.12); }
.lx-key { display: flex; flex-wrap: wrap; gap: 2px 12px; margin-top: 4px; font-size: 12px; }
`;

// A marker of its own for each class, so that colour is not the only difference.
function marker(pen, kind, x, y, r) {
  pen.beginPath();
  if (kind % 4 === 0) pen.arc(x, y, r, 0, 7);
  else if (kind % 4 === 1) pen.rect(x - r * 0.9, y - r * 0.9, 1.8 * r, 1.8 * r);
  else {
    const corners = kind % 4 === 2 ? 3 : 4;
    for (let i = 0; i < corners; i++) {
      const a = (2 * Math.PI * i) / corners - Math.PI / 2;
      pen.lineTo(x + 1.25 * r * Math.cos(a), y + 1.25 * r * Math.sin(a));
    }
    pen.closePath();
  }
  pen.fill();
  pen.stroke();
}

function render({ model, el }) {
  const spec = model.get("spec"), d = spec.model.latent_dim;
  const [channels, high, wide] = spec.model.shape;
  const decode = makeDecoder(spec.model, model.get("weights"));
  const flat = new Float32Array(toBytes(model.get("codes")).slice().buffer);
  const codes = Array.from({ length: flat.length / d }, (_, i) => [...flat.slice(i * d, i * d + d)]);
  const pixels = toBytes(model.get("images"));
  const [realHigh, realWide] = spec.image_shape, size = channels * realHigh * realWide;
  const axes = spec.components.length;
  const LIMIT = spec.span, MAP = 320; // to each side of the map; screen pixels

  let z = [...model.get("code")], way = d > 2 ? "arc" : "line", t = null, tiles = true;
  let ends = spec.ends.map((code) => [...code]);
  let sending, settling;

  // ---- parts
  const root = make("div", { className: "lx" }, make("style", { textContent: STYLE }));
  const alertBox = make("div", { role: "alert", hidden: true });
  const map = make("canvas", {
    className: "lx-map", tabIndex: 0, role: "application",
    ariaLabel: `Latent map, ${spec.axis_names[0]} across and ${spec.axis_names[1]} up. `
      + "Arrow keys move the point, with Shift further.",
  });
  const picture = make("canvas", { className: "lx-picture", role: "img", width: wide, height: high });
  const zoom = Math.max(1, Math.round(200 / wide)), small = Math.max(1, Math.round(120 / wide));
  picture.style.width = `${wide * zoom}px`;
  picture.style.height = `${high * zoom}px`;
  const real = make("canvas", { role: "img", width: realWide, height: realHigh });
  real.style.width = `${wide * small}px`;
  real.style.height = `${high * small}px`;
  const realText = make("figcaption");
  const gauge = make("div"), facts = make("div", { className: "lx-quiet lx-facts" });
  const sliders = [], values = [], thumbs = { line: null, arc: null };

  function guard(work) {
    return (...given) => {
      try {
        work(...given);
      } catch (error) {
        alertBox.hidden = false;
        alertBox.textContent = `${error.name}: ${error.message}`;
        throw error;
      }
    };
  }

  // ---- coordinates: standard deviations along each direction
  const along = (code, k) =>
    spec.components[k].reduce((sum, c, i) => sum + c * (code[i] - spec.mean[i]), 0) / spec.scale[k];
  const shifted = (code, k, value) => {
    const step = (value - along(code, k)) * spec.scale[k];
    return code.map((v, i) => v + step * spec.components[k][i]);
  };
  const toX = (s) => ((s + LIMIT) / (2 * LIMIT)) * MAP;
  const toY = (s) => ((LIMIT - s) / (2 * LIMIT)) * MAP;
  const spot = (code) => [toX(along(code, 0)), toY(along(code, 1))];

  // ---- pictures
  function paint(pen, image, x = 0, y = 0, w = wide, h = high) {
    const rgba = pen.createImageData(w, h);
    for (let i = 0; i < w * h; i++) {
      for (let c = 0; c < 3; c++)
        rgba.data[4 * i + c] = 127.5 * (image[i * channels + (channels === 3 ? c : 0)] + 1);
      rgba.data[4 * i + 3] = 255;
    }
    pen.putImageData(rgba, x, y);
  }
  const pen = picture.getContext("2d");

  function nearest() {
    let best = -1, least = Infinity;
    codes.forEach((code, i) => {
      let sum = 0;
      for (let k = 0; k < d && sum < least; k++) sum += (code[k] - z[k]) ** 2;
      if (sum < least) [best, least] = [i, sum];
    });
    return [best, Math.sqrt(least)];
  }

  const nameOf = (i) => spec.class_names[spec.labels[i]] || "";

  function drawReal() {
    const [i, distance] = nearest();
    if (pixels.length) {
      const image = Float32Array.from(pixels.subarray(i * size, (i + 1) * size), (v) => v / 127.5 - 1);
      paint(real.getContext("2d"), image, 0, 0, realWide, realHigh);
    }
    const what = [`image ${i + 1}`, nameOf(i)].filter(Boolean).join(", ");
    realText.textContent = distance < 1e-3 ? `${what}: its own code` : `nearest: ${what}, ${distance.toFixed(1)} away`;
    real.ariaLabel = `The image whose code is nearest: ${what}`;
  }

  function drawGauge() {
    const [low, high95] = spec.norms, n = norm(z), most = Math.max(1.35 * high95, n * 1.05, spec.prior ? 1.4 * Math.sqrt(d) : 0);
    const X = (v) => 6 + (v / most) * 248;
    const band = (a, b, y, colour, dash) =>
      `<line x1="${X(a)}" x2="${X(b)}" y1="${y}" y2="${y}" stroke="${colour}" stroke-width="6" ${dash}/>`;
    const shell = spec.prior ? band(...spec.prior, 22, "#E69F00", 'stroke-dasharray="5 2"') : "";
    gauge.innerHTML =
      `<svg width="260" height="${spec.prior ? 34 : 24}" role="img" aria-label="Norm ${n.toFixed(2)}" style="max-width:100%">`
      + `<line x1="6" x2="254" y1="14" y2="14" stroke="currentColor" opacity=".25"/>${band(low, high95, 10, "#0072B2", "")}${shell}`
      + `<path d="M${X(n)} 2V${spec.prior ? 28 : 20}" stroke="currentColor" stroke-width="3"/></svg>`
      + `<div class="lx-quiet">norm <b>${n.toFixed(2)}</b>; <span style="color:#0072B2">&#9632;</span> 90 % of these codes ${low.toFixed(1)} to ${high95.toFixed(1)}`
      + (spec.prior ? `; <span style="color:#E69F00">&#9632;</span> of draws from N(0, I) ${spec.prior[0].toFixed(1)} to ${spec.prior[1].toFixed(1)}` : "")
      + "</div>";
  }

  // ---- the map: pictures that lie under it, codes, the walk, the point
  const ratio = Math.max(1, Math.min(3, window.devicePixelRatio || 1)), GRID = 9;
  map.width = map.height = MAP * ratio;
  map.style.width = map.style.height = `${MAP}px`;
  const under = make("canvas", { width: GRID * wide, height: GRID * high });
  let underKey = "", underRow = GRID;

  function drawUnder() {
    // a row of pictures at a time, so that a hand on a slider never waits for them
    if (!tiles || !root.isConnected) return;
    const key = Array.from({ length: axes }, (_, k) => (k < 2 ? 0 : along(z, k).toFixed(3))).join() + rest(z);
    if (key !== underKey) [underKey, underRow] = [key, 0];
    if (underRow >= GRID) return;
    const s = (i) => LIMIT * ((2 * i + 1) / GRID - 1);
    for (let i = 0; i < GRID; i++) {
      const code = shifted(shifted(z, 0, s(i)), 1, -s(underRow));
      paint(under.getContext("2d"), decode(code), i * wide, underRow * high);
    }
    underRow += 1;
    drawMap();
    setTimeout(guard(drawUnder), 0);
  }

  // what of a code lies outside the named directions
  const rest = (code) => {
    let left = code.map((v, i) => v - spec.mean[i]);
    for (let k = 0; k < axes; k++) {
      const a = spec.components[k].reduce((sum, c, i) => sum + c * left[i], 0);
      left = left.map((v, i) => v - a * spec.components[k][i]);
    }
    return norm(left).toFixed(2);
  };

  function drawMap() {
    const ink = map.getContext("2d");
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.fillStyle = "#ffffff";
    ink.fillRect(0, 0, MAP, MAP);
    ink.imageSmoothingEnabled = false;
    if (tiles) {
      ink.globalAlpha = 0.55;
      ink.drawImage(under, 0, 0, MAP, MAP);
      ink.globalAlpha = 1;
    }
    ink.strokeStyle = "#7a7f86";
    ink.lineWidth = 1;
    ink.setLineDash([2, 3]);
    ink.beginPath();
    ink.moveTo(toX(0), 0); ink.lineTo(toX(0), MAP);
    ink.moveTo(0, toY(0)); ink.lineTo(MAP, toY(0));
    ink.stroke();
    ink.setLineDash([]);
    for (const radius of spec.rings)
      for (const [colour, width] of [["#ffffff", 4], ["#444a52", 1.5]]) {
        ink.strokeStyle = colour;
        ink.lineWidth = width;
        ink.beginPath();
        for (let i = 0; i <= 90; i++)
          ink.lineTo(...spot([Math.cos(i / 14.3239), Math.sin(i / 14.3239)].map((v) => radius * v)));
        ink.stroke();
      }
    ink.lineWidth = 1;
    ink.strokeStyle = "#ffffff";
    codes.forEach((code, i) => {
      ink.fillStyle = spec.colours[(spec.labels[i] || 0) % spec.colours.length];
      marker(ink, spec.labels[i] || 0, ...spot(code), 3.6);
    });
    for (const [colour, width] of [["#ffffff", 5], ["#000000", 2.5]]) {
      ink.strokeStyle = colour;
      ink.lineWidth = width;
      ink.beginPath();
      for (let i = 0; i <= 24; i++) ink.lineTo(...spot(WAYS[way](ends[0], ends[1], i / 24)));
      ink.stroke();
    }
    ink.font = "bold 13px system-ui, sans-serif";
    ink.textAlign = "center";
    ink.textBaseline = "middle";
    ends.forEach((code, i) => {
      const [x, y] = spot(code);
      ink.fillStyle = "#000000";
      ink.beginPath(); ink.arc(x, y, 9, 0, 7); ink.fill();
      ink.fillStyle = "#ffffff";
      ink.fillText("AB"[i], x, y + 0.5);
    });
    const [x, y] = spot(z).map((v) => Math.min(MAP - 5, Math.max(5, v)));
    for (const [colour, width] of [["#ffffff", 6], ["#D55E00", 3]]) {
      ink.strokeStyle = colour;
      ink.lineWidth = width;
      ink.beginPath(); ink.arc(x, y, 10, 0, 7);
      ink.moveTo(x - 15, y); ink.lineTo(x - 6, y); ink.moveTo(x + 6, y); ink.lineTo(x + 15, y);
      ink.moveTo(x, y - 15); ink.lineTo(x, y - 6); ink.moveTo(x, y + 6); ink.lineTo(x, y + 15);
      ink.stroke();
    }
  }

  // ---- the walk
  const STOPS = 7;
  const plot = make("div");

  function drawWalk() {
    for (const name of Object.keys(WAYS)) {
      const ink = thumbs[name].getContext("2d");
      for (let i = 0; i < STOPS; i++)
        paint(ink, decode(WAYS[name](ends[0], ends[1], i / (STOPS - 1))), i * (wide + 2), 0);
    }
    drawPlot();
  }

  function drawPlot() {
    const steps = Array.from({ length: 33 }, (_, i) => i / 32);
    const curves = Object.fromEntries(Object.entries(WAYS).map(([name, go]) => [name, steps.map((u) => norm(go(ends[0], ends[1], u)))]));
    const most = 1.15 * Math.max(...curves.line, ...curves.arc, spec.norms[1]);
    const X = (u) => 30 + 160 * u, Y = (v) => 84 - (76 * v) / most;
    const path = (name) => "M" + steps.map((u, i) => `${X(u).toFixed(1)} ${Y(curves[name][i]).toFixed(1)}`).join("L");
    const now = t === null ? "" : `<circle cx="${X(t)}" cy="${Y(norm(z))}" r="4.5" fill="#D55E00" stroke="#fff"/>`;
    const half = (name) => curves[name][16].toFixed(1);
    plot.innerHTML =
      `<svg width="200" height="104" role="img" aria-label="Norm along the walk: half-way ${half("line")} on the line, ${half("arc")} on the arc" font-size="11" fill="currentColor">`
      + `<rect x="30" width="160" y="${Y(spec.norms[1])}" height="${Y(spec.norms[0]) - Y(spec.norms[1])}" fill="#0072B2" opacity=".16"/>`
      + `<path d="M30 4V84H190" fill="none" stroke="currentColor"/>`
      + `<path d="${path("line")}" fill="none" stroke="#0072B2" stroke-width="2"/>`
      + `<path d="${path("arc")}" fill="none" stroke="#D55E00" stroke-width="2" stroke-dasharray="6 3"/>${now}`
      + `<text x="26" y="88" text-anchor="end">0</text><text x="26" y="${Y(curves.arc[0]) + 4}" text-anchor="end">${curves.arc[0].toFixed(1)}</text>`
      + `<text x="32" y="98">A</text><text x="182" y="98">B</text><text x="110" y="98" text-anchor="middle">norm on the way</text></svg>`;
  }

  // ---- one move: the picture at once, the rest of the page with it
  let spent = 0;
  function show() {
    const start = performance.now();
    paint(pen, decode(z));
    spent = performance.now() - start;
    picture.dataset.ms = spent.toFixed(2);
    drawMap();
    sliders.forEach((slider, k) => {
      const s = along(z, k);
      if (document.activeElement !== slider || Math.abs(slider.value - s) > 0.03) slider.value = s;
      values[k].textContent = s.toFixed(2).replace("-", "\u2212");
    });
    drawGauge();
    drawReal();
    clearTimeout(settling);
    settling = setTimeout(guard(settle), 120);
  }

  function settle() {
    const where = [0, 1].map((k) => `${spec.axis_names[k]} ${along(z, k).toFixed(1)}`).join(", ");
    picture.ariaLabel = `Picture decoded at ${where}; norm ${norm(z).toFixed(2)}`;
    facts.textContent = `${wide} x ${high} pixels from ${d} numbers in ${spent.toFixed(1)} ms, by your browser alone.`;
    model.set("code", z.map((v) => Math.round(v * 1e5) / 1e5));
    model.save_changes();
    drawUnder();
  }

  function go(code, place = null) {
    z = code;
    t = place;
    if (t !== null) tSlider.value = t;
    tText.textContent = t === null ? "off the walk" : t.toFixed(2);
    show();
    drawPlot();
  }

  // ---- controls
  const directions = make("div", { className: "lx-sliders" });
  for (let k = 0; k < axes; k++) {
    const slider = make("input", { type: "range", min: -LIMIT, max: LIMIT, step: 0.02, className: "lx-direction" });
    const value = make("output");
    slider.addEventListener("input", guard(() => go(shifted(z, k, Number(slider.value)))));
    directions.append(make("label", {}, make("span", { textContent: spec.axis_labels[k] }), make("span"), slider, value));
    sliders.push(slider);
    values.push(value);
  }
  const tSlider = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, className: "lx-place" });
  const tText = make("output", { textContent: "off the walk" });
  tText.style.cssText = "min-width:6em;white-space:nowrap";
  tSlider.addEventListener("input", guard(() => {
    const u = Number(tSlider.value);
    go(WAYS[way](ends[0], ends[1], u), u);
  }));

  const button = (text, work) => {
    const node = make("button", { type: "button", textContent: text });
    node.addEventListener("click", guard(work));
    return node;
  };
  const setEnd = (i) => {
    ends[i] = [...z];
    drawWalk();
    go(z, i);
  };
  let turn = 0;
  const gaussian = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  const buttons = make("div", { className: "lx-buttons" },
    button("Next image", () => go([...codes[(turn += 1) % codes.length]])),
    ...(spec.prior ? [button("Draw from N(0, I)", () => go(z.map(gaussian)))] : []),
    button("To the middle", () => go([...spec.mean])),
    button("Set A here", () => setEnd(0)),
    button("Set B here", () => setEnd(1)));

  const radioName = `lx-way-${Math.random().toString(36).slice(2)}`;
  const choices = Object.keys(WAYS).map((name) => {
    const input = make("input", { type: "radio", name: radioName, value: name, checked: name === way });
    input.addEventListener("change", guard(() => {
      way = name;
      if (t === null) drawMap();
      else go(WAYS[way](ends[0], ends[1], t), t);
    }));
    return make("label", {}, input, { line: "straight line (lerp)", arc: "arc (slerp)" }[name]);
  });
  const strips = Object.keys(WAYS).map((name) => {
    const strip = make("canvas", { width: STOPS * (wide + 2) - 2, height: high, role: "img",
      ariaLabel: `Seven pictures from A to B along the ${name}` });
    strip.style.maxWidth = `${strip.width * Math.max(1, Math.round(56 / wide))}px`;
    strip.addEventListener("click", guard((event) => {
      const place = Math.min(STOPS - 1, Math.floor((event.offsetX / strip.clientWidth) * STOPS)) / (STOPS - 1);
      way = name;
      choices.forEach((label) => { label.firstChild.checked = label.firstChild.value === name; });
      go(WAYS[name](ends[0], ends[1], place), place);
    }));
    thumbs[name] = strip;
    return make("div", { className: "lx-strip" }, make("span", { textContent: name }), strip);
  });

  const showTiles = make("input", { type: "checkbox", checked: true });
  showTiles.addEventListener("change", guard(() => {
    tiles = showTiles.checked;
    underKey = "";
    drawMap();
    drawUnder();
  }));

  // ---- the map answers to pointer and keys
  const place = (event) => {
    const box = map.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((v) => (v / box.width) * MAP);
  };
  const moveTo = (x, y) => {
    const s = (v) => Math.min(LIMIT, Math.max(-LIMIT, v));
    go(shifted(shifted(z, 0, s((x / MAP) * 2 * LIMIT - LIMIT)), 1, s(LIMIT - (y / MAP) * 2 * LIMIT)));
  };
  map.addEventListener("pointerdown", guard((event) => {
    const [x, y] = place(event);
    try { map.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
    const reach = (code) => Math.hypot(spot(code)[0] - x, spot(code)[1] - y);
    const near = codes.map((code, i) => [reach(code), i]).sort((a, b) => a[0] - b[0])[0];
    if (reach(z) > 12 && near && near[0] < 6) go([...codes[(turn = near[1])]]);
    else moveTo(x, y);
  }));
  map.addEventListener("pointermove", guard((event) => {
    if (event.buttons & 1 && map.hasPointerCapture(event.pointerId)) moveTo(...place(event));
  }));
  map.addEventListener("keydown", guard((event) => {
    const step = event.shiftKey ? 0.5 : 0.1;
    const by = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowDown: [1, -step], ArrowUp: [1, step] }[event.key];
    if (!by) return;
    event.preventDefault();
    const s = Math.min(LIMIT, Math.max(-LIMIT, along(z, by[0]) + by[1]));
    go(shifted(z, by[0], s));
  }));

  const key = make("div", { className: "lx-key" });
  spec.class_names.forEach((name, k) => {
    const mark = make("canvas", { width: 14 * ratio, height: 14 * ratio, ariaHidden: "true" });
    mark.style.cssText = "width:14px;height:14px;display:inline-block;vertical-align:-3px;margin-right:4px";
    const ink = mark.getContext("2d");
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.fillStyle = spec.colours[k % spec.colours.length];
    ink.strokeStyle = "#ffffff";
    marker(ink, k, 7, 7, 4.5);
    key.append(make("span", {}, mark, name));
  });

  const pictures = make("div", { className: "lx-pictures" },
    make("figure", {}, picture, make("figcaption", { textContent: "decoded" })));
  if (pixels.length) pictures.append(make("figure", {}, real, realText));
  root.append(
    alertBox,
    make("div", { className: "lx-top" },
      make("figure", {}, map,
        make("figcaption", { textContent: `across: ${spec.axis_names[0]}; up: ${spec.axis_names[1]}${
          spec.rings.length ? "; rings: half and 95 % of N(0, I)" : ""}` }), key,
        make("label", { className: "lx-row lx-quiet" }, make("span", {}, showTiles, "show the pictures under the map"))),
      make("div", { className: "lx-seen" }, pictures, gauge, buttons, facts)),
    make("fieldset", {}, make("legend", { textContent: spec.heading }), directions),
    make("fieldset", {}, make("legend", { textContent: "Walk from A to B" }),
      make("div", { className: "lx-row" }, ...choices,
        make("label", { className: "lx-t" }, "A", tSlider, "B", tText)),
      make("div", { className: "lx-walk" }, make("div", { className: "lx-strips" }, ...strips), plot)));
  root.dataset.lmSuppressShortcuts = "true"; // arrow keys are the map's, not Jupyter's
  el.append(root);

  const fromKernel = guard(() => {
    const sent = model.get("code");
    if (sent.some((v, i) => Math.abs(v - z[i]) > 1e-4)) go([...sent]);
  });
  model.on("change:code", fromKernel);
  guard(() => {
    drawWalk();
    go(z, z.every((v, i) => Math.abs(v - ends[0][i]) < 1e-4) ? 0 : null);
  })();
  return () => {
    clearTimeout(settling);
    model.off("change:code", fromKernel);
  };
}

export default { render };
