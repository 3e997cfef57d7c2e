"use strict";
(() => {
  const table = document.getElementById("slides");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headers = Array.from(table.tHead.rows[0].cells);
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = parseFloat(text);
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    // A dash, where there is no number, stays last.
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b);
  };
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
      body.append(...rows);
    });
  });
  const parts = Array.from(document.querySelectorAll("[data-slide]"));
  const text = new Map(rows.map((row) => [row.dataset.slide, row.textContent.toLowerCase()]));
  const shown = document.getElementById("shown");
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const part of parts) part.hidden = !text.get(part.dataset.slide).includes(wanted);
    const left = rows.filter((row) => !row.hidden).length;
    shown.textContent = wanted ? `${left} of ${rows.length}` : "";
  });
})();
