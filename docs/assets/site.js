"use strict";
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const stored = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
const show = (name) => root.classList.toggle("dark", name === "dark");
show(stored ?? (dark.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => {
  const name = root.classList.contains("dark") ? "light" : "dark";
  show(name);
  try { localStorage.setItem("theme", name); } catch { /* a file without storage */ }
});

const menu = document.getElementById("menu");
menu.addEventListener("click", () => {
  const open = document.body.classList.toggle("menu");
  menu.setAttribute("aria-expanded", String(open));
});

const search = document.getElementById("search");
const found = document.getElementById("found");
const MOST = 12;
const rank = (one, words) => {
  const title = one.title.toLowerCase(), text = one.text.toLowerCase(), page = one.page.toLowerCase();
  let sum = 0;
  for (const word of words) {
    const at = title.startsWith(word) ? 8 : title.includes(word) ? 4 : page.includes(word) ? 2 : text.includes(word) ? 1 : 0;
    if (!at) return 0;
    sum += at;
  }
  return sum;
};
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const hits = !words.length ? [] : INDEX.map((one) => [rank(one, words), one]).filter(([sum]) => sum)
    .sort((one, other) => other[0] - one[0]).slice(0, MOST);
  found.replaceChildren(...hits.map(([, one]) => {
    const item = document.createElement("li"), link = document.createElement("a"), page = document.createElement("span");
    link.href = one.at;
    link.textContent = one.title;
    page.textContent = one.page === one.title ? one.text : `${one.page}: ${one.text}`;
    link.append(page);
    item.append(link);
    return item;
  }));
  if (words.length && !hits.length) found.textContent = "nothing";
  found.hidden = !words.length;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape") { found.hidden = true; search.blur(); }
});
