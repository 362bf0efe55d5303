"use strict";
// The page is whole without this script: it adds moving to a section inside of a frame, filters of
// long tables and the map that can be explored. It keeps nothing and asks nobody.
(() => {
  // In a frame that was filled from a string a link to "#flags" would lead to the frame's parent.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    const target = link && document.getElementById(link.getAttribute("href").slice(1));
    if (!target) return;
    event.preventDefault();
    target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
    target.scrollIntoView();
  });

  for (const table of document.querySelectorAll("table[data-filter]")) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length <= 8) continue; // these are seen at a glance
    const label = document.createElement("label");
    const input = document.createElement("input");
    const told = document.createElement("span");
    label.className = "filter";
    told.setAttribute("role", "status");
    input.type = "search";
    label.append(`Filter ${table.dataset.filter} `, told, input);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      told.textContent = words.length ? `(${shown} of ${rows.length} shown)` : "";
    });
    const place = table.closest(".scroll") || table;
    place.before(label);
  }
})();
