"use strict";
// Three conveniences; without them the page still shows everything.

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

// A slide may take the whole width.
for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    const plate = button.closest(".plate");
    const large = plate.classList.toggle("large");
    button.setAttribute("aria-pressed", String(large));
    if (large) plate.scrollIntoView({ block: "start" });
  });
}
