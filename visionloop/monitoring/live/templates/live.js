"use strict";
// Says when there is a newer version than the page shows. Nothing on the pages needs this script.
(() => {
  const body = document.body;
  const part = body.dataset.part;
  const link = document.getElementById("newer");
  if (!part || !link) return;
  link.href = location.pathname + location.search;
  const look = async () => {
    try {
      const told = await (await fetch("/version", { cache: "no-store" })).json();
      link.hidden = !told[part] || told[part] === body.dataset.version;
    } catch {
      // The server is away: what is shown stays.
    }
  };
  setInterval(() => { if (!document.hidden) look(); }, 5000);
})();
