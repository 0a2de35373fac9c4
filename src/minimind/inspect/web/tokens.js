// Each token with its odds: a colour for the surprise, and on the side what else was likely.
panels.tokens = (root, data, reading) => {
  const bands = {
    surprise: { of: (at) => data.bits[at], edges: data.steps.map((p) => -Math.log2(p)) },
    entropy: { of: (at) => data.entropy[at], edges: [1, 2.5, 4.5, 6.5] },
    rank: { of: (at) => data.rank[at], edges: [1, 3, 10, 100] },
  };
  const bandOf = (measure, at) => {
    const value = bands[measure].of(at);
    return value === null ? null : bands[measure].edges.filter((edge) => value > edge + 1e-9).length;
  };
  const legend = make("div", "legend");
  const names = {
    surprise: ["≥ 50 %", "25–50 %", "6–25 %", "1.6–6 %", "< 1.6 %"],
    entropy: ["≤ 1", "1–2.5", "2.5–4.5", "4.5–6.5", "> 6.5"],
    rank: ["1", "2–3", "4–10", "11–100", "> 100"],
  };
  const detail = make("div", "detail");
  detail.setAttribute("aria-live", "polite");
  detail.append(say(make("p", "hint"), "point"));
  const { box, nodes } = strip(reading, { onShow: (at) => show(at) });

  const row = ([text, share], came, extra) => {
    const name = make("span", "name");
    name.textContent = text;
    if (came) name.append(say(make("em"), extra.key, extra.values));
    const figure = make("span", "share");
    figure.textContent = percent(share);
    const bar = make("span", "bar");
    bar.style.width = `${Math.max(0.5, 100 * share)}%`;
    return make("div", came ? "row came" : "row", name, figure, bar);
  };
  const show = (at) => {
    const title = make("h3", "", say(make("span"), "token", { n: at + 1 }));
    const big = make("div", "big");
    big.textContent = reading.tokens[at] || "∅";
    if (data.bits[at] === null) {
      detail.replaceChildren(title, big, say(make("p", "hint"), "first"));
      return;
    }
    title.append(say(make("span"), "bits", { n: data.bits[at].toFixed(1) }));
    const own = reading.ids[at];
    const chosen = { key: "chosen", values: {} };
    const lines = data.alternatives[at].map((one) => row(one, one[2] === own, chosen));
    let left = 1 - data.alternatives[at].reduce((sum, one) => sum + one[1], 0);
    if (!data.alternatives[at].some((one) => one[2] === own)) {
      const share = 2 ** -data.bits[at];
      left -= share;
      const placed = { key: "rank_is", values: { n: thousands(data.rank[at]) } };
      lines.push(row([reading.tokens[at], share], true, placed));
    }
    const rest = row(["", Math.max(0, left)], false);
    rest.classList.add("rest");
    say(rest.firstChild, "others");
    const entropy = say(make("p", "hint"), "tokens_entropy_is", { n: data.entropy[at].toFixed(1) });
    detail.replaceChildren(title, big, ...lines, rest, entropy);
  };
  const paint = (measure) => {
    nodes.forEach((node, at) => {
      node.className = node.className.replace(/ ?band\d/, "");
      const band = bandOf(measure, at);
      if (band !== null) node.classList.add(`band${band}`);
    });
    legend.replaceChildren(
      say(make("span"), `tokens_legend_${measure}`),
      ...names[measure].map((name, band) => make("span", `key band${band}`, name)),
    );
  };
  const measures = ["surprise", "entropy", "rank"].map((name) => [name, `tokens_${name}`, {}]);
  const known = data.bits.filter((bits) => bits !== null);
  const mean = known.reduce((sum, bits) => sum + bits, 0) / Math.max(1, known.length);
  const best = data.rank.filter((rank) => rank === 1).length / Math.max(1, known.length);
  root.append(
    make("div", "controls", choice(measures, "surprise", paint), legend),
    make("div", "columns", box, detail),
  );
  if (known.length) {
    root.append(say(make("p", "summary"), "tokens_mean", {
      bits: mean.toFixed(2), choices: thousands(Math.round(2 ** mean)), best: (100 * best).toFixed(0),
    }));
  }
  paint("surprise");
};
