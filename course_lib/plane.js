// The picture of the GAN lab, and a board to put points on by mouse or by keyboard.
// One picture at a time: the kernel sends the next one when `painted` says that this
// one is seen.

function render({ model, el }) {
  const size = model.get("size");
  const half = model.get("half");
  const root = document.createElement("div");
  root.style.cssText = `position:relative;width:${size}px;height:${size}px`;
  // The notebook's own shortcuts must not take the arrow keys.
  root.dataset.lmSuppressShortcuts = "true";
  const canvases = ["picture", "board"].map((name) => {
    const canvas = document.createElement("canvas");
    canvas.className = `plane-${name}`;
    canvas.width = canvas.height = size;
    canvas.style.cssText = "position:absolute;inset:0;border-radius:4px";
    root.append(canvas);
    return canvas;
  });
  const [picture, board] = canvases;
  picture.setAttribute("role", "img");
  board.setAttribute("role", "application");
  board.setAttribute(
    "aria-label",
    "Board for points. Arrow keys move the cross, with shift further; space puts a " +
      "point, backspace takes the last one away.",
  );
  board.style.touchAction = "none";
  el.append(root);

  // --- the picture: the latest one, and never a queue of old ones
  let busy = false;
  let waiting = false;
  async function show() {
    waiting = busy;
    if (busy) return;
    busy = true;
    const frame = model.get("frame");
    const bytes = model.get("picture");
    if (bytes && bytes.byteLength) {
      const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
      picture.getContext("2d").drawImage(bitmap, 0, 0);
      picture.setAttribute("aria-label", model.get("alt"));
      picture.dataset.frame = frame;
      model.set("painted", frame);
      model.save_changes();
    }
    busy = false;
    if (waiting) show();
  }

  // --- the board
  const pen = board.getContext("2d");
  const cursor = [0, 0];
  const toPixel = ([x, y]) => [
    ((x / half + 1) / 2) * size,
    ((1 - y / half) / 2) * size,
  ];
  const toPlane = (x, y) => [((2 * x) / size - 1) * half, (1 - (2 * y) / size) * half];
  const round = (point) => point.map((v) => Math.round(1000 * v) / 1000);
  let points = model.get("points");

  function cross([x, y], arm, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(x - arm, y);
    pen.lineTo(x + arm, y);
    pen.moveTo(x, y - arm);
    pen.lineTo(x, y + arm);
    pen.stroke();
  }
  function draw() {
    const drawing = model.get("drawing");
    board.style.cursor = drawing ? "crosshair" : "default";
    board.style.pointerEvents = drawing ? "auto" : "none";
    board.tabIndex = drawing ? 0 : -1;
    board.setAttribute("aria-hidden", String(!drawing));
    pen.clearRect(0, 0, size, size);
    if (!drawing) return;
    for (const point of points) cross(toPixel(point), 4, "black", 2);
    if (document.activeElement === board || board.matches(":focus")) {
      cross(toPixel(cursor), 12, "white", 5);
      cross(toPixel(cursor), 12, "#0072B2", 2);
    }
  }
  function put(point) {
    points = [...points, round(point)];
    draw();
  }
  function send() {
    model.set("points", points);
    model.save_changes();
  }

  let last = null; // where the pen was when it left its last point
  board.addEventListener("pointerdown", (event) => {
    board.setPointerCapture(event.pointerId);
    board.focus({ preventScroll: true });
    last = [event.offsetX, event.offsetY];
    put(toPlane(...last));
  });
  board.addEventListener("pointermove", (event) => {
    if (!last) return;
    const here = [event.offsetX, event.offsetY];
    if (Math.hypot(here[0] - last[0], here[1] - last[1]) < 8) return;
    last = here;
    put(toPlane(...here));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    board.addEventListener(name, () => {
      if (last) send();
      last = null;
    });
  }
  board.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.25 : 0.05;
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key in ways) {
      ways[event.key].forEach((way, i) => {
        cursor[i] = Math.max(-half, Math.min(half, cursor[i] + way * step));
      });
      draw();
    } else if (event.key === " ") {
      put([...cursor]);
      send();
    } else if (event.key === "Backspace") {
      points = points.slice(0, -1);
      draw();
      send();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  board.addEventListener("focus", draw);
  board.addEventListener("blur", draw);

  const changes = {
    "change:frame": show,
    "change:drawing": draw,
    "change:points": () => {
      points = model.get("points");
      draw();
    },
  };
  for (const [name, act] of Object.entries(changes)) model.on(name, act);
  show();
  draw();
  return () => {
    for (const [name, act] of Object.entries(changes)) model.off(name, act);
  };
}

export default { render };
