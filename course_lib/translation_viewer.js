// The translation viewer: two layers under one divider, the difference, lesion outlines.
// One ES module for JupyterLab (through anywidget) and for a page without a kernel.

const STYLE = `
.tv { font: 13px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); max-width: 860px;
  color: var(--jp-ui-font-color1, CanvasText); box-sizing: border-box; padding: 2px; }
.tv * { box-sizing: border-box; }
.tv-top { display: flex; flex-wrap: wrap; gap: 18px; align-items: flex-start; }
.tv figure { margin: 0; }
.tv .tv-row { margin: 4px 0; }
.tv canvas { display: block; image-rendering: pixelated; border-radius: 3px; }
.tv-main { cursor: ew-resize; touch-action: none; }
.tv :focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.tv-names { display: flex; justify-content: space-between; font-weight: 600; }
.tv-side { flex: 1 1 320px; min-width: 260px; }
.tv-layers { display: flex; flex-wrap: wrap; gap: 8px; margin-bottom: 8px; }
.tv-layers button { font: inherit; font-size: 12px; padding: 4px; border-radius: 4px; cursor: pointer;
  border: 2px solid transparent; background: none; color: inherit; text-align: center; }
.tv-layers button:hover { border-color: #8a8f96; }
.tv-layers button[aria-pressed=true] { border-color: #0072B2; }
.tv-row { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; }
.tv-row label { display: flex; gap: 6px; align-items: center; }
.tv-grow { flex: 1 1 240px; }
.tv input[type=range] { flex: 1 1 auto; min-width: 60px; margin: 0; accent-color: #0072B2; }
.tv input[type=checkbox] { margin: 0; accent-color: #0072B2; }
.tv select { font: inherit; padding: 2px 4px; color: inherit; border: 1px solid #8a8f96;
  border-radius: 4px; background: var(--jp-layout-color1, Canvas); }
.tv table { border-collapse: collapse; margin: 8px 0 0; font-variant-numeric: tabular-nums; }
.tv th, .tv td { padding: 2px 10px 2px 0; text-align: right; border: 0; background: none; }
.tv th:first-child { text-align: left; font-weight: 600; }
.tv thead th { font-weight: 400; font-size: 12px; }
.tv tr.tv-now th:first-child { color: inherit; text-decoration: underline 2px #0072B2; text-underline-offset: 3px; }
.tv-quiet { color: var(--jp-ui-font-color2, inherit); font-size: 12px; }
.tv kbd { border: 1px solid #8a8f96; border-radius: 3px; padding: 0 4px; font-size: 11px; }
.tv [role=alert] { border-left: 4px solid #D55E00; padding: .4em .8em; margin: 6px 0;
  background: rgba(213,94,0,.12); }
`;

function render({ model, el }) {
  const spec = model.get("spec"), [high, wide] = spec.shape, cases = spec.cases;
  const pixels = toBytes(model.get("pixels")), lesions = toBytes(model.get("lesions"));
  const names = spec.names, truth = names.length - 1, size = high * wide;
  const image = (layer, i) => pixels.subarray((layer * cases + i) * size, (layer * cases + i + 1) * size);
  const zoom = Math.max(1, Math.round(352 / wide)), small = Math.max(1, Math.round(72 / wide));
  const middle = Math.max(1, Math.round(190 / wide));
  const ratio = Math.max(1, Math.min(3, window.devicePixelRatio || 1));
  const W = wide * zoom, H = high * zoom;

  let now = 0, left = 1, right = truth, swipe = 0.5, outline = lesions.length > 0;

  function canvas(width, heightPx, attributes = {}) {
    const node = make("canvas", attributes);
    node.width = width * ratio;
    node.height = heightPx * ratio;
    node.style.width = `${width}px`;
    node.style.height = `${heightPx}px`;
    return node;
  }

  const alertBox = make("div", { role: "alert", hidden: true });
  const guard = (work) => (...given) => {
    try {
      return work(...given);
    } catch (error) {
      alertBox.hidden = false;
      alertBox.textContent = `${error.name}: ${error.message}`;
      throw error;
    }
  };

  // ---- what is drawn
  const cell = make("canvas", { width: wide, height: high });
  function grey(values) {
    const pen = cell.getContext("2d"), rgba = pen.createImageData(wide, high);
    for (let i = 0; i < size; i++) {
      rgba.data[4 * i] = rgba.data[4 * i + 1] = rgba.data[4 * i + 2] = values[i];
      rgba.data[4 * i + 3] = 255;
    }
    pen.putImageData(rgba, 0, 0);
    return cell;
  }
  // darker than the truth: blue; brighter: orange; equal: white
  function difference(values, real) {
    const pen = cell.getContext("2d"), rgba = pen.createImageData(wide, high);
    for (let i = 0; i < size; i++) {
      const d = (values[i] - real[i]) / 128, to = d < 0 ? [0, 114, 178] : [213, 94, 0];
      const part = Math.min(1, Math.abs(d) * 1.6);
      for (let c = 0; c < 3; c++) rgba.data[4 * i + c] = 255 - part * (255 - to[c]);
      rgba.data[4 * i + 3] = 255;
    }
    pen.putImageData(rgba, 0, 0);
    return cell;
  }
  function edges(pen, scale, dark) {
    if (!outline || !lesions.length) return;
    const mask = lesions.subarray(now * size, (now + 1) * size);
    const at = (x, y) => (x < 0 || y < 0 || x >= wide || y >= high ? 0 : mask[y * wide + x]);
    pen.beginPath();
    for (let y = 0; y <= high; y++)
      for (let x = 0; x <= wide; x++) {
        if (at(x, y) !== at(x - 1, y)) { pen.moveTo(x * scale, y * scale); pen.lineTo(x * scale, (y + 1) * scale); }
        if (at(x, y) !== at(x, y - 1)) { pen.moveTo(x * scale, y * scale); pen.lineTo((x + 1) * scale, y * scale); }
      }
    for (const [colour, width] of [["#000000", 3.5], [dark, 1.8]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.lineCap = "round";
      pen.stroke();
    }
  }
  function fill(node, picture, scale, from = 0, to = 1, dark = "#E69F00") {
    const pen = node.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.save();
    pen.beginPath();
    pen.rect(from * wide * scale, 0, (to - from) * wide * scale, high * scale);
    pen.clip();
    pen.drawImage(picture, 0, 0, wide * scale, high * scale);
    pen.restore();
    if (to === 1) edges(pen, scale, dark);
    return pen;
  }

  const main = canvas(W, H, { className: "tv-main", tabIndex: 0, role: "application" });
  const leftName = make("span"), rightName = make("span");
  const gap = canvas(wide * middle, high * middle, { role: "img", className: "tv-difference" });
  const gapName = make("figcaption", { className: "tv-quiet" });

  function drawMain() {
    const start = performance.now();
    fill(main, grey(image(left, now)), zoom, 0, swipe);
    const pen = fill(main, grey(image(right, now)), zoom, swipe, 1);
    const x = Math.min(W - 2, Math.max(2, swipe * W));
    for (const [colour, width] of [["#000000", 5], ["#ffffff", 2.5]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(x, 0); pen.lineTo(x, H);
      pen.moveTo(x - 6, H / 2 - 6); pen.lineTo(x - 12, H / 2); pen.lineTo(x - 6, H / 2 + 6);
      pen.moveTo(x + 6, H / 2 - 6); pen.lineTo(x + 12, H / 2); pen.lineTo(x + 6, H / 2 + 6);
      pen.stroke();
    }
    main.dataset.ms = (performance.now() - start).toFixed(2);
  }

  // the translation that is looked at: on the right, else on the left
  const shown = () => [right, left].find((k) => k > 0 && k < truth) ?? 1;

  const rows = [];
  function show() {
    drawMain();
    const k = shown();
    fill(gap, difference(image(k, now), image(truth, now)), middle, 0, 1, "#000000");
    gapName.textContent = `${names[k]} minus ${names[truth]}: blue too dark, orange too bright`;
    gap.ariaLabel = `Difference of ${names[k]} and ${names[truth]}, ${spec.titles[now]}`;
    leftName.textContent = names[left];
    rightName.textContent = names[right];
    swipeSlider.value = 100 * swipe;
    caseSlider.value = now + 1;
    caseText.textContent = spec.titles[now];
    leftChoice.value = left;
    rightChoice.value = right;
    check.checked = outline;
    thumbs.forEach(([button, node], layer) => {
      fill(node, grey(image(layer, now)), small);
      button.setAttribute("aria-pressed", layer === right);
    });
    rows.forEach(([row, cells], i) => {
      const fact = spec.facts[i][now];
      row.className = i + 1 === k ? "tv-now" : "";
      cells[0].textContent = fact.psnr.toFixed(1);
      if (cells[1]) cells[1].textContent = fact.inside === null ? "no lesion" : fact.inside.toFixed(2);
    });
    if (lesions.length) {
      const inside = spec.facts[0][now].truth_inside;
      truthCell.textContent = inside === null ? "" : inside.toFixed(2);
    }
    main.ariaLabel = `${spec.titles[now]}: ${names[left]} to the left of the divider, ${names[right]} to the right. `
      + "Left and right arrows move the divider, up and down the slice, space flips, L shows the lesion outline.";
  }

  // ---- controls
  const slider = (label, attributes, work) => {
    const node = make("input", { type: "range", ...attributes });
    node.addEventListener("input", guard(() => work(Number(node.value))));
    return [node, make("label", { className: "tv-grow" }, label, node)];
  };
  const [swipeSlider, swipeLabel] = slider("Swipe", { min: 0, max: 100, step: 1, className: "tv-swipe" }, (v) => {
    swipe = v / 100;
    drawMain();
  });
  const [caseSlider, caseLabel] = slider("Slice", { min: 1, max: cases, step: 1, className: "tv-case" }, (v) => {
    now = v - 1;
    show();
  });
  const caseText = make("output");
  const choice = (label, work) => {
    const node = make("select", { ariaLabel: `${label} of the divider` }, ...names.map((name, k) => make("option", { value: k, textContent: name })));
    node.addEventListener("change", guard(() => { work(Number(node.value)); show(); }));
    return [node, make("label", {}, label, node)];
  };
  const [leftChoice, leftLabel] = choice("Left", (k) => { left = k; });
  const [rightChoice, rightLabel] = choice("Right", (k) => { right = k; });
  const check = make("input", { type: "checkbox" });
  check.addEventListener("change", guard(() => { outline = check.checked; show(); }));

  const thumbs = names.map((name, k) => {
    const node = canvas(wide * small, high * small, { role: "img", ariaLabel: name });
    const button = make("button", { type: "button", title: `Show ${name} on the right` }, node, name);
    button.addEventListener("click", guard(() => { right = k; show(); }));
    return [button, node];
  });

  const truthCell = make("td");
  const head = ["", "PSNR of this slice (dB)", ...(lesions.length ? ["mean inside the outline"] : [])];
  const body = make("tbody");
  names.slice(1, truth).forEach((name) => {
    const cells = head.slice(1).map(() => make("td"));
    const row = make("tr", {}, make("th", { scope: "row", textContent: name }), ...cells);
    rows.push([row, cells]);
    body.append(row);
  });
  if (lesions.length)
    body.append(make("tr", {}, make("th", { scope: "row", textContent: names[truth] }), make("td"), truthCell));

  // ---- pointer and keys on the picture
  const follow = (event) => {
    const box = main.getBoundingClientRect();
    swipe = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    swipeSlider.value = 100 * swipe;
    drawMain();
  };
  main.addEventListener("pointerdown", guard((event) => {
    try { main.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
    follow(event);
  }));
  main.addEventListener("pointermove", guard((event) => {
    if (event.buttons & 1) follow(event);
  }));
  main.addEventListener("keydown", guard((event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const act = {
      arrowleft: () => { swipe = Math.max(0, swipe - 0.05); },
      arrowright: () => { swipe = Math.min(1, swipe + 0.05); },
      arrowup: () => { now = (now + cases - 1) % cases; },
      arrowdown: () => { now = (now + 1) % cases; },
      " ": () => { swipe = swipe > 0.5 ? 0 : 1; },
      l: () => { outline = !outline; },
    }[key] || (Number(key) >= 1 && Number(key) <= names.length ? () => { right = Number(key) - 1; } : null);
    if (!act) return;
    event.preventDefault();
    act();
    show();
  }));

  const root = make("div", { className: "tv" }, make("style", { textContent: STYLE }), alertBox,
    make("div", { className: "tv-top" },
      make("figure", {}, main, make("div", { className: "tv-names" }, leftName, rightName),
        make("div", { className: "tv-row" }, swipeLabel),
        make("div", { className: "tv-row" }, caseLabel, caseText)),
      make("div", { className: "tv-side" },
        make("div", { className: "tv-layers", role: "group", ariaLabel: "What stands on the right" }, ...thumbs.map(([button]) => button)),
        make("figure", {}, gap, gapName),
        make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", textContent: text })))), body))),
    make("div", { className: "tv-row" }, leftLabel, rightLabel,
      ...(lesions.length ? [make("label", {}, check, "lesion outline")] : [])));
  const help = make("div", { className: "tv-quiet" });
  help.innerHTML = "On the picture: <kbd>&larr;</kbd> <kbd>&rarr;</kbd> divider, <kbd>&uarr;</kbd> <kbd>&darr;</kbd> slice, "
    + `<kbd>space</kbd> flip, <kbd>1</kbd> to <kbd>${names.length}</kbd> the right side`
    + (lesions.length ? ", <kbd>L</kbd> lesion outline." : ".");
  root.append(help);
  root.dataset.lmSuppressShortcuts = "true"; // keys are the picture's, not Jupyter's
  el.append(root);
  guard(show)();
}

export default { render };
