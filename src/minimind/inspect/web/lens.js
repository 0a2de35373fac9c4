// The logit lens as a table: down the text, across the layers.
panels.lens = (root, data, reading) => {
  const stages = data.top.length;
  const edges = [1 / 64, 0.0625, 0.25, 0.5];
  const bandOf = (p) => edges.filter((edge) => p >= edge).length;
  const stage = (at) =>
    at === 0 ? word("lens_embedding") : word("lens_after", { n: at - 1 });
  const readout = say(make("p", "readout"), "lens_point");
  readout.setAttribute("aria-live", "polite");

  const legend = make("div", "legend", say(make("span"), "lens_legend"));
  ["< 1.6 %", "1.6–6 %", "6–25 %", "25–50 %", "≥ 50 %"].forEach((name, band) =>
    legend.append(make("span", `key sure${band}`, name)),
  );
  legend.append(say(make("span", "key hit"), "lens_hit"));

  const head = make("tr", "", make("th"), say(make("th", "input"), "lens_input"));
  const means = make("tr", "means", make("th"), say(make("th", "input"), "lens_mean"));
  const most = Math.max(1e-9, ...data.bits.slice(1)); // the embedding's may be far above all others
  for (let at = 0; at < stages; at += 1) {
    head.append(
      at === 0 ? say(make("th"), "lens_embedding") : say(make("th"), "lens_after", { n: at - 1 }),
    );
    const mean = make("th");
    if (data.bits.length) {
      const bar = make("span", "mean");
      bar.style.height = `${Math.min(34, Math.max(2, (34 * data.bits[at]) / most))}px`;
      mean.append(bar, data.bits[at].toFixed(1));
    }
    means.append(mean);
  }
  head.append(say(make("th", "next"), "lens_next"));
  means.append(make("th"));

  const body = make("tbody");
  reading.tokens.forEach((text, t) => {
    const row = make("tr");
    const number = make("td", "number", String(t + 1));
    const input = make("th", "input", text || "∅");
    input.scope = "row";
    row.append(number, input);
    for (let at = 0; at < stages; at += 1) {
      const cell = make("td", "", data.texts[data.top[at][t]]);
      cell.dataset.t = t;
      cell.dataset.at = at;
      if (t + 1 < reading.tokens.length) {
        cell.classList.add(`sure${bandOf(data.next_probability[at][t])}`);
        if (data.next_rank[at][t] === 1) cell.classList.add("hit");
      }
      row.append(cell);
    }
    row.append(make("td", "next", reading.tokens[t + 1] ?? ""));
    body.append(row);
  });
  const table = make("table", "lens", make("thead", "", head, means), body);
  const show = (event) => {
    const cell = event.target.closest?.("td[data-at]");
    if (!cell) return;
    table.querySelector(".shown")?.classList.remove("shown");
    cell.classList.add("shown");
    const [t, at] = [Number(cell.dataset.t), Number(cell.dataset.at)];
    const values = {
      stage: () => stage(at), query: reading.tokens[t], top: data.texts[data.top[at][t]],
      share: percent(data.top_probability[at][t]),
    };
    if (t + 1 === reading.tokens.length) say(readout, "lens_end", values);
    else {
      say(readout, "lens_at", {
        ...values, next: reading.tokens[t + 1], own: percent(data.next_probability[at][t]),
        rank: thousands(data.next_rank[at][t]),
      });
    }
  };
  table.addEventListener("mouseover", show);
  table.addEventListener("click", show);
  root.append(legend, readout, make("div", "scroll tall", table));
};
