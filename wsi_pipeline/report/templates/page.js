"use strict";
// A few conveniences; without them the page still shows everything.

// Column heads sort their table; what has no value stays at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const collator = new Intl.Collator("en", { numeric: true });
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.classList.contains("n") ? cell.dataset.sort : cell.dataset.sort ?? cell.textContent.trim();
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => ({ row, key: value(row, column) }));
      rows.sort((a, b) => {
        if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined);
        return collator.compare(a.key, b.key) * (descending ? -1 : 1);
      });
      const numeric = head.classList.contains("n");
      if (numeric) {
        rows.sort((a, b) => {
          if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined);
          return (Number(a.key) - Number(b.key)) * (descending ? -1 : 1);
        });
      }
      body.append(...rows.map(({ row }) => row));
    });
  });
}

// One switch for all slides; a slide without the layer shows its nearest.
const all = document.getElementById("all");
if (all) {
  all.addEventListener("change", (event) => {
    for (const plate of document.querySelectorAll(".plate")) {
      const wanted = plate.querySelector(`input[value="${event.target.value}"]`);
      if (wanted) wanted.checked = true;
    }
  });
}

// A picture may take the whole width; enlarged, it can be zoomed and moved by buttons, keys, wheel and pointer.
function zoomable(svg) {
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  let x = 0, y = 0, scale = 1;
  const show = () => {
    const w = width / scale, h = height / scale;
    x = Math.min(Math.max(x, 0), width - w);
    y = Math.min(Math.max(y, 0), height - h);
    svg.setAttribute("viewBox", `${x} ${y} ${w} ${h}`);
  };
  const zoom = (factor) => {
    const next = Math.min(Math.max(scale * factor, 1), 12);
    x += width / scale / 2 - width / next / 2;
    y += height / scale / 2 - height / next / 2;
    scale = next;
    show();
  };
  const move = (dx, dy) => { x += dx * width / scale; y += dy * height / scale; show(); };
  return { zoom, move, reset: () => { scale = 1; x = y = 0; show(); } };
}
for (const button of document.querySelectorAll(".enlarge")) {
  const figure = button.closest("figure");
  const svg = figure.querySelector(".stage > svg");
  const view = zoomable(svg);
  const large = () => figure.classList.contains("large");
  const bar = document.createElement("div");
  bar.className = "zoom";
  for (const [sign, name, factor] of [["+", "Zoom in", 1.5], ["\u2212", "Zoom out", 1 / 1.5]]) {
    const key = document.createElement("button");
    key.type = "button";
    key.textContent = sign;
    key.setAttribute("aria-label", name);
    key.addEventListener("click", () => view.zoom(factor));
    bar.append(key);
  }
  button.before(bar);
  button.addEventListener("click", () => {
    const on = figure.classList.toggle("large");
    button.setAttribute("aria-pressed", String(on));
    if (on) figure.scrollIntoView({ block: "start" });
    else view.reset();
  });
  const steps = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
  figure.querySelector(".stage").addEventListener("keydown", (event) => {
    if (!large()) return;
    if (event.key === "Escape") return button.click();
    if (steps[event.key]) { view.move(...steps[event.key]); event.preventDefault(); }
    else if (event.key === "+" || event.key === "=") view.zoom(1.5);
    else if (event.key === "-") view.zoom(1 / 1.5);
  });
  svg.addEventListener("wheel", (event) => {
    if (!large() || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    view.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
  }, { passive: false });
  svg.addEventListener("pointermove", (event) => {
    if (!large() || !(event.buttons & 1)) return;
    const box = svg.getBoundingClientRect();
    view.move(-event.movementX / box.width, -event.movementY / box.height);
  });
}
