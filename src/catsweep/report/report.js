// Interaction of report.html: samples of the trial under the pointer, order of the table, long tables.
"use strict";
(() => {
  const FIRST = matchMedia("(min-width: 52rem)").matches ? 30 : 12; // rows of a long table that are shown at first
  const tip = document.getElementById("tip");
  const table = document.querySelector(".scroll .trials");
  const rows = table ? [...table.tBodies[0].rows] : [];
  let hot = null;
  let pinned = false;

  const marked = (node) => node.closest && node.closest("svg [data-t], .bar, .gallery [data-t], a[data-t]");
  const same = (number) => document.querySelectorAll(`svg [data-t="${number}"], .bar[data-t="${number}"]`);

  function light(number) {
    if (hot !== null) same(hot).forEach((node) => node.classList.remove("hot"));
    hot = number;
    if (hot !== null) same(hot).forEach((node) => node.classList.add("hot"));
  }

  function fill(number, text) {
    const row = document.getElementById(`trial-${number}`);
    const card = document.createElement("table");
    card.className = "trials";
    const copy = card.createTBody().appendChild(row.cloneNode(true));
    copy.removeAttribute("id");
    copy.hidden = false;
    const close = document.createElement("button");
    close.className = "close";
    close.textContent = "✕";
    close.setAttribute("aria-label", "close");
    close.onclick = hide;
    tip.replaceChildren(card, close);
    if (text) {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = text;
      tip.prepend(note);
    }
  }

  function place(x, y) {
    tip.style.transform = "";
    if (!matchMedia("(hover: hover) and (min-width: 34rem)").matches) return;
    const box = tip.getBoundingClientRect();
    const left = x + 18 + box.width > innerWidth ? x - 18 - box.width : x + 18;
    const top = Math.min(Math.max(8, y - 40), innerHeight - box.height - 8);
    tip.style.transform = `translate(${Math.max(8, left)}px, ${Math.max(8, top)}px)`;
  }

  function show(number, text, x, y) {
    fill(number, text);
    tip.hidden = false;
    place(x, y);
    light(number);
  }

  function pin() {
    tip.classList.add("pinned");
    pinned = true;
  }

  function hide() {
    tip.hidden = true;
    tip.classList.remove("pinned");
    pinned = false;
    light(null);
  }

  const centre = (node) => {
    const box = node.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };

  document.addEventListener("pointerover", (event) => {
    const node = marked(event.target);
    if (node && !pinned && event.pointerType === "mouse") show(node.dataset.t, node.dataset.note, event.clientX, event.clientY);
  });
  document.addEventListener("pointerout", (event) => {
    if (!pinned && marked(event.target) && event.pointerType === "mouse") hide();
  });
  document.addEventListener("click", (event) => {
    if (tip.contains(event.target) || event.target.closest(".plotly-place")) return;
    const node = marked(event.target);
    if (!node || node.tagName === "A") return hide();
    show(node.dataset.t, node.dataset.note, event.clientX, event.clientY);
    pin();
  });
  document.addEventListener("focusin", (event) => {
    const node = event.target.matches("svg [data-t]:focus-visible") ? event.target : null;
    if (node && !pinned) show(node.dataset.t, node.dataset.note, ...centre(node));
  });
  document.addEventListener("focusout", () => pinned || hide());
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

  window.hideTrial = () => pinned || hide();
  window.showTrial = (number, x, y, keep) => {
    if (pinned && !keep) return;
    show(String(number), "", x, y);
    if (keep) pin();
  };

  if (!table) return;

  // --- the table

  const heads = [...table.tHead.rows[0].cells];
  const choice = document.querySelector(".sorting select");
  const all = document.querySelector(".all");
  let whole = rows.length <= FIRST;

  function limit() {
    [...table.tBodies[0].rows].forEach((row, place) => { row.hidden = !whole && place >= FIRST; });
    all.hidden = whole;
  }

  function value(row, column) {
    const text = row.cells[column].dataset.v;
    const number = { inf: Infinity, "-inf": -Infinity }[text] ?? Number(text);
    return text === "" || text === "nan" ? null : Number.isNaN(number) ? text : number;
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null); // what has no value comes last, either way
    const order = typeof a === "number" && typeof b === "number" ? (a > b) - (a < b) : String(a).localeCompare(String(b));
    return sign * order;
  }

  function sort(column, down) {
    const sign = down ? -1 : 1;
    const sorted = [...rows].sort((a, b) => compare(value(a, column), value(b, column), sign));
    table.tBodies[0].append(...sorted);
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    limit();
  }

  heads.forEach((head, column) => {
    const name = head.textContent.trim();
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.onclick = () => sort(column, head.getAttribute("aria-sort") === "ascending");
    head.replaceChildren(button);
    if (head.classList.contains("strip")) choice.add(new Option("rank, best first", `${column} 0`));
    else for (const down of [0, 1]) choice.add(new Option(`${name}, ${down ? "high" : "low"} first`, `${column} ${down}`));
  });
  choice.value = `${heads.findIndex((head) => head.classList.contains("strip"))} 0`;
  choice.onchange = () => sort(...choice.value.split(" ").map(Number));
  choice.parentElement.hidden = false;
  all.onclick = () => { whole = true; limit(); };
  addEventListener("hashchange", () => {
    const row = document.querySelector(location.hash || "#none");
    if (row && row.hidden) { whole = true; limit(); row.scrollIntoView(); }
  });
  limit();
})();
