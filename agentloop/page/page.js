"use strict";
{
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // --- light and dark ---
  const theme = document.getElementById("theme");
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  label();

  // --- the axis ---
  const say = (seconds) => {
    if (seconds === 0) return "0";
    if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 60) return `${+seconds.toFixed(1)} s`;
    const minutes = Math.floor(seconds / 60), rest = Math.round(seconds % 60);
    if (minutes < 60) return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
    const hours = Math.floor(minutes / 60);
    return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  };
  const nice = (least) => {
    const steps = [60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];
    if (least > 30) return steps.find((step) => step >= least) ?? 86400 * Math.ceil(least / 86400);
    const power = 10 ** Math.floor(Math.log10(least));
    return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= least);
  };
  const drawAxis = (plot) => {
    const axis = plot.firstElementChild, length = +plot.dataset.length;
    const step = nice(length / Math.max(plot.clientWidth / 90, 1));
    const ticks = [];
    for (let n = 0; n * step <= length && n < 2000; n++) {
      const tick = document.createElement("i"), text = document.createElement("b");
      tick.style.left = `${(n * step) / length * 100}%`;
      text.textContent = say(n * step);
      if ((length - n * step) / length * plot.clientWidth < 45) text.hidden = true;
      tick.append(text);
      ticks.push(tick);
    }
    axis.replaceChildren(...ticks);
    const width = plot.clientWidth / 100;
    for (const bar of all(".bar", plot))
      bar.classList.toggle("thin", parseFloat(bar.style.width) * width < bar.textContent.length * 6.3 + 11);
  };
  const zoom = (chart, by, x) => {
    const plot = chart.firstElementChild, before = +(plot.dataset.zoom ?? 1);
    const after = by ? Math.min(Math.max(before * by, 1), 256) : 1;
    if (after === before) return;
    const at = x ?? chart.clientWidth / 2, share = (chart.scrollLeft + at) / chart.scrollWidth;
    plot.dataset.zoom = after;
    plot.style.width = `${after * 100}%`;
    chart.scrollLeft = share * chart.scrollWidth - at;
    drawAxis(plot);
  };
  for (const section of all(".timeline")) {
    const chart = section.querySelector(".chart");
    for (const button of all(".zoom", section))
      button.addEventListener("click", () => zoom(chart, +button.dataset.by));
    chart.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(chart, event.deltaY < 0 ? 1.4 : 1 / 1.4, event.clientX - chart.getBoundingClientRect().left);
    }, { passive: false });
  }
  const drawAll = () => all(".plot").forEach(drawAxis);
  addEventListener("resize", drawAll);
  drawAll();

  // --- what a bar stands for ---
  const tip = document.getElementById("tip");
  const show = (bar, x, y) => {
    const name = document.createElement("b");
    name.textContent = bar.dataset.took;
    tip.replaceChildren(name, ` at ${say(+bar.dataset.at)}`, document.createElement("br"), bar.dataset.says);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18}px`;
  };
  addEventListener("pointermove", (event) => {
    const bar = event.target.closest?.(".bar");
    if (bar) show(bar, event.clientX, event.clientY);
    else tip.hidden = true;
  });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // --- from a bar to what was said ---
  const goTo = () => {
    const id = decodeURIComponent(location.hash.slice(1)), target = id && document.getElementById(id);
    all(".bar.here").forEach((bar) => bar.classList.remove("here"));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    all(".bar").find((bar) => bar.hash === location.hash)?.classList.add("here");
    target.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", goTo);
  goTo();

  // --- folding ---
  const unfold = document.getElementById("unfold");
  unfold.addEventListener("click", () => {
    const calls = all(".call"), open = !calls.every((call) => call.open);
    for (const call of calls) call.open = open;
    unfold.textContent = open ? "Fold all" : "Unfold all";
  });

  // --- search ---
  const search = document.getElementById("search"), found = document.getElementById("found");
  const parts = all(".steps > .step, .steps > .said").map((element) => ({ element, text: null }));
  const bars = new Map(all(".bar").map((bar) => [bar, bar.hash.slice(1).replace(/c\d+$/, "")]));
  let opened = [];
  const mark = (elements, wanted) => {
    if (!globalThis.Highlight) return;
    const ranges = [];
    for (const element of elements) {
      const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
      for (let node; (node = walker.nextNode()) && ranges.length < 2000;) {
        const text = node.data.toLowerCase();
        for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
          const range = new Range();
          range.setStart(node, at);
          range.setEnd(node, at + wanted.length);
          ranges.push(range);
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  };
  const look = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const call of opened) call.open = false;
    opened = [];
    globalThis.CSS?.highlights?.delete("found");
    const hits = [];
    for (const part of parts) {
      part.text ??= part.element.textContent.toLowerCase();
      const hit = !wanted || part.text.includes(wanted);
      part.element.classList.toggle("away", !hit);
      if (hit && wanted) hits.push(part.element);
    }
    const ids = new Set(hits.flatMap((hit) => [hit.id, ...all(".step", hit).map((step) => step.id)]));
    for (const [bar, id] of bars) bar.classList.toggle("dim", Boolean(wanted) && !ids.has(id));
    const steps = hits.filter((hit) => hit.matches(".step")).length;
    found.value = wanted ? `${steps} of ${parts.filter((p) => p.element.matches(".step")).length} steps` : "";
    if (!wanted) return;
    for (const hit of hits.slice(0, 40))
      for (const call of all(".call", hit))
        if (!call.open && call.textContent.toLowerCase().includes(wanted)) {
          call.open = true;
          opened.push(call);
        }
    mark(hits.slice(0, 200), wanted);
  };
  let waiting = 0;
  search.addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(look);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
    if (event.key === "Escape" && document.activeElement === search) { search.value = ""; look(); }
  });
}
