
"use strict";
(() => {
  const tip = document.getElementById("tip");
  const show = (lines, event) => {
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const beside = event.clientX + 14 + box.width > innerWidth ? event.clientX - box.width - 14 : event.clientX + 14;
    tip.style.left = `${Math.max(4, beside)}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 4))}px`;
  };
  const hide = () => { tip.hidden = true; };
  const figure = (value) => {
    const size = Math.abs(value);
    if (size >= 1000) return Math.round(value).toLocaleString("en-US");
    return size && size < 0.01 ? value.toPrecision(3) : String(Number(value.toFixed(4)));
  };
  const nearest = (points, x) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < x) low = middle; else high = middle;
    }
    return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
  };

  for (const svg of document.querySelectorAll("svg[data-plot]")) {
    const plot = JSON.parse(svg.dataset.plot);
    const [x0, x1, left, right] = plot.x, [y0, y1, bottom, top] = plot.y;
    const shapes = document.createElementNS("http://www.w3.org/2000/svg", "g");
    svg.append(shapes);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const px = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      if (px < left - 8 || px > right + 8) { shapes.replaceChildren(); return hide(); }
      const x = x0 + (px - left) / (right - left) * (x1 - x0);
      const rows = [];
      let marks = "", at = null;
      for (const series of plot.series) {
        if (!series.points.length) continue;
        const point = nearest(series.points, x);
        if (at === null) at = point[0];
        const cx = left + (point[0] - x0) / (x1 - x0) * (right - left);
        const cy = bottom - (point[1] - y0) / (y1 - y0) * (bottom - top);
        marks += `<circle cx="${cx}" cy="${cy}" r="4" class="f${series.colour}"/>`;
        rows.push(`${series.name}: ${figure(point[1])}` + (point[0] === at ? "" : `  (${figure(point[0])})`));
      }
      if (at === null) return;
      const cx = left + (at - x0) / (x1 - x0) * (right - left);
      shapes.innerHTML = `<path class="cursor" d="M${cx} ${top}V${bottom}"/>${marks}`;
      show([`${plot.label}: ${figure(at)}`, ...rows], event);
    });
    svg.addEventListener("pointerleave", () => { shapes.replaceChildren(); hide(); });
  }
  for (const mark of document.querySelectorAll("[data-tip]")) {
    mark.addEventListener("pointermove", (event) => show([mark.dataset.tip], event));
    mark.addEventListener("pointerleave", hide);
  }

  const articles = [...document.querySelectorAll("article")];
  const buttons = [...document.querySelectorAll(".languages button")];
  const speak = (language) => {
    if (!articles.some((article) => article.dataset.lang === language)) return;
    for (const article of articles) article.hidden = article.dataset.lang !== language;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.lang === language));
    const shown = articles.find((article) => !article.hidden);
    document.documentElement.lang = shown.lang;
    document.title = shown.querySelector("h1").textContent;
  };
  for (const button of buttons) button.addEventListener("click", () => speak(button.dataset.lang));
  const asked = new URLSearchParams(location.search).get("lang") || location.hash.slice(1).split("-")[0];
  speak(articles.find((article) => !article.hidden).dataset.lang);
  if (asked) speak(asked);
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
})();
