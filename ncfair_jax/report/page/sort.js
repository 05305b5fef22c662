"use strict";
// Sorts a table by the column whose heading is pressed: numbers as numbers, what has none last, a second press turns it.
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const original = [...body.rows];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const turn = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
      const numeric = original.some((row) => "sort" in row.cells[column].dataset);
      const key = (row) => {
        const cell = row.cells[column];
        return numeric ? parseFloat(cell.dataset.sort) : cell.textContent.trim();
      };
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (!numeric) return turn * x.localeCompare(y, "en");
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return turn * (x - y);
      };
      body.append(...[...original].sort(compare));
    });
  });
}
