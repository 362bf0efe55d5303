// The embedding map: colour by what one asks for, zoom, pan, and open a picture with a click or keys.
(() => {
  const source = document.getElementById("map-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const app = document.getElementById("map-app");
  const canvas = app.querySelector("canvas");
  const keys = app.querySelector(".map-keys");
  const card = app.querySelector(".map-card");
  const said = app.querySelector("[role=status]");
  const choice = app.querySelector("select");
  const brush = canvas.getContext("2d");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const n = data.x.length;
  const UNIT = 10000, NAMED = 10, RADIUS = 3;
  let view = { scale: 1, x: 0, y: 0 };
  let groups = [], group = new Int32Array(n), current = -1, hidden = new Set();

  // A column is a list of words and, for each point, an index (or a list of them) into it.
  const told = (column, i) => {
    const held = data[column].at[i];
    const list = Array.isArray(held) ? held : held < 0 ? [] : [held];
    return list.map((k) => data[column].words[k]);
  };
  const one = (column, i) => told(column, i)[0] || "";
  const agreed = (i) => {
    const label = one("label", i), said = one("prediction", i);
    if (!label || !said) return label ? "not predicted" : "no label";
    return label === said ? "prediction is the label" : "prediction is not the label";
  };
  const sure = (i) => {
    const value = data.confidence[i];
    if (value < 0) return "not predicted";
    return value < 500 ? "under 50%" : value < 800 ? "50 to 80%" : value < 950 ? "80 to 95%" : "95% and more";
  };
  // A class or a source may be called like what stands for none: then it is quoted.
  const named = (column, i, none) => {
    const text = one(column, i);
    return QUIET.has(text) ? `"${text}"` : text || none;
  };
  const ways = {
    label: (i) => named("label", i, "no label"),
    prediction: (i) => named("prediction", i, "not predicted"),
    agreement: agreed,
    confidence: sure,
    flag: (i) => one("flag_kind", i) || "no flag",
    round: (i) => one("round", i) || "unknown",
    picked: (i) => one("picked", i) || "not picked",
    source: (i) => named("source", i, "unknown"),
    split: (i) => one("split", i) || "unknown",
  };
  const QUIET = new Set(["no label", "not predicted", "no flag", "unknown", "not picked"]);

  const regroup = () => {
    const way = ways[choice.value];
    const counts = new Map();
    const names = Array.from({ length: n }, (_, i) => way(i));
    for (const name of names) counts.set(name, (counts.get(name) || 0) + 1);
    const loud = [...counts.keys()].filter((name) => !QUIET.has(name));
    loud.sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
    const shown = loud.length > NAMED ? NAMED - 1 : NAMED;
    groups = loud.slice(0, shown).map((name, k) => ({ name, colour: `--c${k}`, n: counts.get(name) }));
    const place = new Map(groups.map((one, k) => [one.name, k]));
    if (loud.length > NAMED) {
      const rest = loud.slice(shown);
      groups.push({ name: `${rest.length} others`, colour: "--c9", n: rest.reduce((s, r) => s + counts.get(r), 0) });
      for (const name of rest) place.set(name, shown);
    }
    for (const name of counts.keys()) {
      if (QUIET.has(name)) {
        place.set(name, groups.length);
        groups.push({ name, colour: "--grey", n: counts.get(name) });
      }
    }
    names.forEach((name, i) => { group[i] = place.get(name); });
    hidden = new Set();
    keys.replaceChildren(...groups.map((one, k) => {
      const button = document.createElement("button");
      const mark = document.createElement("i");
      mark.style.background = `var(${one.colour})`;
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(mark, `${one.name} (${one.n.toLocaleString("en")})`);
      button.addEventListener("click", () => {
        hidden.has(k) ? hidden.delete(k) : hidden.add(k);
        button.setAttribute("aria-pressed", String(!hidden.has(k)));
        draw();
      });
      return button;
    }));
    draw();
  };

  const size = () => ({ w: canvas.clientWidth, h: canvas.clientHeight });
  // The map keeps its proportions: distances across mean what distances up and down mean.
  const side = () => Math.min(size().w, size().h) - 4 * RADIUS;
  const place = (i) => {
    const { w, h } = size();
    return [
      w / 2 + ((data.x[i] / UNIT - 0.5) * side() + view.x) * view.scale,
      h / 2 - ((data.y[i] / UNIT - 0.5) * side() - view.y) * view.scale,
    ];
  };

  function draw() {
    const { w, h } = size();
    if (!w) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    const radius = RADIUS * Math.min(2.2, Math.sqrt(view.scale));
    const quiet = groups.map((one, k) => k).sort((a, b) => QUIET.has(groups[b].name) - QUIET.has(groups[a].name));
    for (const k of quiet) {
      if (hidden.has(k)) continue;
      brush.fillStyle = style.getPropertyValue(groups[k].colour).trim();
      brush.globalAlpha = QUIET.has(groups[k].name) ? 0.55 : 0.85;
      brush.beginPath();
      for (let i = 0; i < n; i++) {
        if (group[i] !== k) continue;
        const [x, y] = place(i);
        brush.moveTo(x + radius, y);
        brush.arc(x, y, radius, 0, 2 * Math.PI);
      }
      brush.fill();
    }
    brush.globalAlpha = 1;
    if (current < 0) return;
    const [x, y] = place(current);
    brush.strokeStyle = style.getPropertyValue("--ink").trim();
    brush.lineWidth = 2.5;
    brush.beginPath();
    brush.arc(x, y, radius + 4, 0, 2 * Math.PI);
    brush.stroke();
  }

  const nearest = (x, y, within) => {
    let best = -1, least = within * within;
    for (let i = 0; i < n; i++) {
      if (hidden.has(group[i])) continue;
      const [px, py] = place(i);
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d <= least) { best = i; least = d; }
    }
    return best;
  };

  const line = (list, name, value) => {
    if (!value) return;
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    list.append(term, text);
  };
  const brief = (i) => {
    const sureness = data.confidence[i] < 0 ? "" : `, ${(data.confidence[i] / 10).toFixed(1)}% sure as answered`;
    const label = one("label", i), said = one("prediction", i);
    return `${data.name[i]}: ${label ? `label ${label}` : "no label"}${said ? `, predicted ${said}${sureness}` : ""}`;
  };
  const open = (i) => {
    current = i;
    draw();
    const k = data.thumbnail[i];
    let picture;
    if (k >= 0) {
      picture = document.createElement("img");
      picture.src = data.thumbnails[k];
      picture.alt = brief(i);
      picture.className = data.small[i] ? "thumb small" : "thumb";
    } else {
      picture = document.createElement("span");
      picture.className = "thumb nothumb";
      picture.textContent = "This page holds no picture of this point.";
    }
    const head = document.createElement("h3"), list = document.createElement("dl");
    head.textContent = data.name[i];
    line(list, "Label", one("label", i) || "none");
    const value = data.confidence[i];
    line(list, "Prediction", one("prediction", i) ? `${one("prediction", i)}${value < 0 ? "" : `, ${(value / 10).toFixed(1)}% sure as answered`}` : "none");
    line(list, "Flags", told("flag", i).join("; ") || "none");
    line(list, "Picked", one("picked", i) ? `in ${one("picked", i)}. ${one("why", i)}` : "no");
    line(list, "Came in", one("round", i));
    line(list, "Split", one("split", i));
    line(list, "Source", one("source", i));
    line(list, "Sample", data.sample[i]);
    card.replaceChildren(picture, head, list);
  };
  const point = (i) => {
    if (i < 0) return;
    current = i;
    said.textContent = brief(i);
    draw();
  };

  const zoom = (factor, x, y) => {
    const { w, h } = size();
    const scale = Math.min(60, Math.max(1, view.scale * factor));
    const dx = (x ?? w / 2) - w / 2, dy = (y ?? h / 2) - h / 2;
    view.x += dx / scale - dx / view.scale;
    view.y += dy / scale - dy / view.scale;
    view.scale = scale;
    if (scale === 1) view = { scale: 1, x: 0, y: 0 };
    // A finger on the whole map scrolls the page; on a part of it, it moves the map.
    canvas.style.touchAction = scale === 1 ? "pan-y" : "none";
    draw();
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const fingers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, at(event));
    if (fingers.size === 1) moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const span = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      zoom(span(now) / span(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      moved = 100;
    } else {
      moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (view.scale > 1 && moved > 4) {
        view.x += (now[0] - before[0]) / view.scale;
        view.y += (now[1] - before[1]) / view.scale;
        draw();
      }
    }
    fingers.set(event.pointerId, now);
  });
  const lift = (event) => {
    const was = fingers.delete(event.pointerId);
    if (!was || event.type === "pointercancel" || moved > 4) return;
    const i = nearest(...at(event), 16);
    if (i >= 0) { point(i); open(i); }
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("wheel", (event) => {
    // The page scrolls past the map; with Ctrl, or once it is zoomed in, the wheel is the map's.
    if (!event.ctrlKey && view.scale === 1) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...at(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2, ...at(event)));

  const WAYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = (dx, dy) => {
    if (current < 0 || hidden.has(group[current])) {
      const { w, h } = size();
      return point(nearest(w / 2, h / 2, Infinity));
    }
    const [x, y] = place(current);
    let best = -1, least = Infinity;
    for (let i = 0; i < n; i++) {
      if (i === current || hidden.has(group[i])) continue;
      const [px, py] = place(i);
      const ahead = (px - x) * dx + (py - y) * dy;
      const aside = Math.abs((px - x) * dy - (py - y) * dx);
      if (ahead <= 0 || aside > ahead * 1.5) continue;
      const cost = ahead + 2 * aside;
      if (cost < least) { best = i; least = cost; }
    }
    if (best >= 0) point(best);
  };
  canvas.addEventListener("keydown", (event) => {
    if (WAYS[event.key]) step(...WAYS[event.key]);
    else if ((event.key === "Enter" || event.key === " ") && current >= 0) open(current);
    else if (event.key === "+" || event.key === "=") zoom(1.5, ...(current < 0 ? [] : place(current)));
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(0);
    else return;
    event.preventDefault();
  });
  for (const button of app.querySelectorAll("button[data-zoom]")) {
    button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
  }
  choice.addEventListener("change", regroup);
  dark.addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas);

  document.getElementById("map-still").hidden = true;
  app.hidden = false;
  regroup();
})();
