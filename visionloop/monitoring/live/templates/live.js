"use strict";
// Says when there is a newer version than the page shows, or a newer report of the same version.
// Nothing on the pages needs this script.
(() => {
  const body = document.body;
  const part = body.dataset.part;
  const link = document.getElementById("newer");
  if (!part || !link) return;
  link.href = location.pathname + location.search;
  const look = async () => {
    try {
      const told = await (await fetch("/version", { cache: "no-store" })).json();
      const same = told[part] === body.dataset.version;
      const anew = "made" in body.dataset && told.report_made !== body.dataset.made;
      link.hidden = !told[part] || (same && !anew);
    } catch {
      // The server is away: what is shown stays.
    }
  };
  setInterval(() => { if (!document.hidden) look(); }, 5000);
})();
