// Surprise along the text with the loop shaded, and a table of what every head looks at.
panels.loops = (root, data, reading, page) => {
  const { loop } = data;
  const bits = reading.panels.tokens.bits;
  const T = bits.length;
  const verdict = make("p", "verdict");
  if (loop) {
    const first = loop.start - loop.period;
    const copy = make("q", "", reading.tokens.slice(first, loop.start).join(""));
    verdict.append(say(make("b"), "loops_found", {
      start: loop.start + 1, period: loop.period, end: loop.end }), " ", copy);
  } else verdict.append(say(make("b"), "loops_free"));
  verdict.append(" ", say(make("span", "quiet"), "loops_rule"));

  // The chart.
  const svg = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const most = Math.max(4, ...bits.map((b) => b ?? 0));
  const chart = svg("svg", {
    viewBox: `0 0 ${T} 100`, preserveAspectRatio: "none", role: "img", class: "bars" });
  if (loop) {
    chart.append(svg("rect", {
      x: loop.start, y: 0, width: loop.end - loop.start, height: 100, class: "looped" }));
  }
  bits.forEach((value, at) => {
    const height = (100 * (value ?? 0)) / most;
    const inside = loop && at >= loop.start && at < loop.end;
    chart.append(svg("rect", {
      x: at + 0.08, y: 100 - height, width: 0.84, height, class: inside ? "bar copied" : "bar" }));
  });
  const idle = { most: Math.max(0, ...bits.map((b) => b ?? 0)).toFixed(1) };
  const told = say(make("figcaption"), "loops_chart", idle);
  chart.addEventListener("mousemove", (event) => {
    const size = chart.getBoundingClientRect();
    const at = Math.floor(((event.clientX - size.left) / size.width) * T);
    if (at < 0 || at >= T || bits[at] === null) return;
    say(told, "loops_bar", { n: at + 1, text: reading.tokens[at], bits: bits[at].toFixed(1) });
  });
  chart.addEventListener("mouseleave", () => say(told, "loops_chart", idle));

  // Who copies.
  const copiers = make("p", "copiers");
  if (data.copiers.length) {
    copiers.append(say(make("span"), "loops_copiers"));
    for (const [layer, head] of data.copiers) {
      const scores = data.heads.find((one) => one.layer === layer && one.head === head);
      const button = make("button", "chip", `L${layer} H${head} · ${percent(scores.copying)}`);
      button.type = "button";
      button.addEventListener("click", () => page.opened.attention?.(layer, head));
      copiers.append(button);
    }
  } else copiers.append(say(make("span"), "loops_nobody"));
  copiers.append(say(make("span", "quiet"), "loops_again", { n: thousands(data.positions) }));

  const layers = [...new Set(data.heads.map((one) => one.layer))];
  const heads = [...new Set(data.heads.map((one) => one.head))];
  const table = make("table", "heads");
  const note = make("p", "summary");
  const edges = [0.05, 0.15, 0.35, 0.6];
  const paint = (measure) => {
    const top = make("tr", "", make("th"), ...heads.map((head) => make("th", "", `H${head}`)));
    const rows = layers.map((layer) => {
      const cells = heads.map((head) => {
        const one = data.heads.find((each) => each.layer === layer && each.head === head);
        const value = one[measure];
        const button = make("button", "", value === null ? "–" : `${(100 * value).toFixed(0)}`);
        button.type = "button";
        button.title = `L${layer} H${head}: ${value === null ? "–" : percent(value)}`;
        button.addEventListener("click", () => page.opened.attention?.(layer, head));
        const band = value === null ? 0 : edges.filter((edge) => value >= edge).length;
        return make("td", `sure${band}`, button);
      });
      return make("tr", "", make("th", "", `L${layer}`), ...cells);
    });
    table.replaceChildren(make("thead", "", top), make("tbody", "", ...rows));
    const chance = data.heads[0].chance;
    if (measure === "copying" && chance !== null) {
      say(note, "loops_table", { chance: percent(chance) });
    } else say(note, "loops_table_plain");
  };
  const measures = [["copying", "loops_copying", {}]];
  if (loop) measures.push(["copying_in_loop", "loops_inside", {}]);
  measures.push(["previous", "loops_previous", {}], ["first", "loops_first", {}]);
  root.append(
    verdict,
    make("figure", "", chart, told),
    copiers,
    make("div", "controls", choice(measures, "copying", paint)),
    make("div", "scroll", table),
    note,
  );
  paint("copying");
};
