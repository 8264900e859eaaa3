// Search and place on the page. PAGES, [address, lesson, heading, text] for each
// section, stands above: a page on disk may load a script beside it, but no data.
"use strict";

const fold = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
const index = PAGES.map(([, lesson, heading, text]) => [
  fold(`${lesson} ${heading}`), fold(text),
]);

function find(query) {
  const words = fold(query).split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found = [];
  index.forEach(([title, text], i) => {
    let score = 0;
    for (const word of words) {
      const inTitle = title.includes(word), times = text.split(word).length - 1;
      if (!inTitle && !times) return;
      score += 20 * inTitle + Math.min(times, 9);
    }
    found.push([score, i]);
  });
  return found.sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, 12).map(([, i]) => i);
}

// The words around the first hit, every hit marked; built as nodes, never as HTML.
function excerpt(text, query) {
  const words = fold(query).split(/\s+/).filter(Boolean);
  const plain = fold(text);
  const same = plain.length === text.length;  // else positions would not agree
  const hits = words.map((word) => plain.indexOf(word)).filter((at) => at >= 0);
  const from = hits.length ? Math.max(0, Math.min(...hits) - 50) : 0;
  const start = from && text.indexOf(" ", from) + 1;
  const whole = text.length <= start + 170 ? text.length : text.lastIndexOf(" ", start + 170);
  const stop = whole > start ? whole : start + 170;  // between two words
  const part = text.slice(start, stop), folded = plain.slice(start, stop);
  const line = document.createElement("span");
  line.append(start ? "… " : "");
  for (let at = 0; at < part.length;) {
    const next = words.map((word) => [folded.indexOf(word, at), word.length])
      .filter(([place]) => same && place >= 0).sort((a, b) => a[0] - b[0] || b[1] - a[1])[0];
    if (!next) { line.append(part.slice(at)); break; }
    const mark = document.createElement("mark");
    mark.textContent = part.slice(next[0], next[0] + next[1]);
    line.append(part.slice(at, next[0]), mark);
    at = next[0] + next[1];
  }
  line.append(stop < text.length ? " …" : "");
  return line;
}

const box = document.getElementById("search"), list = document.getElementById("found");
const count = document.getElementById("count");

function show() {
  const query = box.value.trim();
  const hits = find(query);
  list.replaceChildren(...hits.map((i) => {
    const [address, lesson, heading, text] = PAGES[i];
    const item = document.createElement("li"), link = document.createElement("a");
    const title = document.createElement("strong"), where = document.createElement("em");
    link.href = address;
    link.onclick = close;  // on this page the address changes nothing but the place
    title.textContent = heading;
    where.textContent = lesson;
    link.append(title, where, excerpt(text, query));
    item.append(link);
    return item;
  }));
  count.textContent = query ? `${hits.length || "No"} section${hits.length === 1 ? "" : "s"} found` : "";
  list.parentElement.hidden = !query;
}

function close() {
  box.value = "";
  show();
}

box.addEventListener("input", show);
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !typing) { event.preventDefault(); box.focus(); }
  if (event.key === "Escape") { close(); box.blur(); }
  if (!list.contains(document.activeElement) && document.activeElement !== box) return;
  const stops = [box, ...list.querySelectorAll("a")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const next = step && stops[stops.indexOf(document.activeElement) + step];
  if (next) { event.preventDefault(); next.focus(); }
  if (event.key === "Enter" && document.activeElement === box && stops[1]) stops[1].click();
});
document.addEventListener("click", (event) => {
  if (!event.target.closest(".search")) list.parentElement.hidden = true;
});
box.addEventListener("focus", show);

// Which section is read now, in the contents beside the text.
const links = new Map([...document.querySelectorAll(".contents.wide a")].map(
  (link) => [link.getAttribute("href").slice(1), link]));
const headings = [...document.querySelectorAll("main h2[id]")];
function mark() {
  const read = headings.filter((h) => h.getBoundingClientRect().top < innerHeight / 3).pop();
  links.forEach((link, id) => link.toggleAttribute("aria-current", id === read?.id));
}
if (headings.length) {
  document.addEventListener("scroll", mark, { passive: true });
  mark();
}
