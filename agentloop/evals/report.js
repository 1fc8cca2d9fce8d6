"use strict";
{
  const all = (selector) => [...document.querySelectorAll(selector)];
  const root = document.documentElement;

  // --- light and dark ---
  const theme = document.getElementById("theme");
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  label();

  // --- which cases are shown ---
  const cases = all(".case"), found = document.getElementById("found");
  const none = document.getElementById("none"), search = document.getElementById("search");
  const texts = new Map();
  const text = (item) => {
    if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase());
    return texts.get(item);
  };
  let show = "all";
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of cases) {
      const kind = show === "all" || show in item.dataset;
      item.hidden = !(kind && words.every((word) => text(item).includes(word)));
      shown += !item.hidden;
    }
    found.textContent = shown === cases.length ? "" : `${shown} of ${cases.length}`;
    none.hidden = shown > 0;
  };
  search.addEventListener("input", update);
  for (const button of all("[data-show]"))
    button.addEventListener("click", () => {
      show = button.dataset.show;
      for (const other of all("[data-show]")) other.setAttribute("aria-pressed", other === button);
      update();
    });
}
