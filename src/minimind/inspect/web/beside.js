// Two models on one text: a colour for who was surer, and both models' tokens on the side.
panels.beside = (root, data, readings) => {
  const table = make("table", "figures");
  const keys = ["model", "bpc", "bits", "tokens", "per_token"];
  const best = data.bits_per_character[0] <= data.bits_per_character[1] ? 0 : 1;
  table.append(make("tr", "", ...keys.map((key) => say(make("th"), `beside_${key}`))));
  data.names.forEach((name, side) => {
    const values = [
      data.bits_per_character[side].toFixed(3), thousands(Math.round(data.bits[side])),
      thousands(data.tokens[side]), (data.characters / data.tokens[side]).toFixed(2),
    ];
    const row = make("tr", side === best ? "best" : "", make("th", `side${side}`, name));
    row.append(...values.map((value) => make("td", "", value)));
    table.append(row);
  });

  // Bits a character, so that a long stretch is not darker for its length.
  const bandOf = ([text, first, second]) => {
    const less = (second - first) / Math.max(1, [...text].length);
    const size = [0.5, 1.5, 3].filter((edge) => Math.abs(less) >= edge).length;
    return size === 0 ? "even" : `${less > 0 ? "one" : "two"}${size}`;
  };
  const legend = make("div", "legend");
  legend.append(
    say(make("span", "key one2"), "beside_surer", { name: data.names[0] }),
    say(make("span", "key even"), "beside_equal"),
    say(make("span", "key two2"), "beside_surer", { name: data.names[1] }),
  );
  const detail = make("div", "detail");
  detail.setAttribute("aria-live", "polite");
  detail.append(say(make("p", "hint"), "beside_point"));
  const box = make("div", "text");

  const column = (side, [, first, second, ...spans]) => {
    const reading = readings[side];
    const [begin, end] = spans.slice(2 * side, 2 * side + 2);
    const odds = reading.panels.tokens;
    const title = make("h3", `side${side}`, make("span", "", data.names[side]));
    title.append(say(make("span"), "bits", { n: (side ? second : first).toFixed(1) }));
    const lines = [];
    for (let at = begin; at < end; at += 1) {
      const name = make("span", "name", reading.tokens[at]);
      const share = odds.bits[at] === null ? "–" : percent(2 ** -odds.bits[at]);
      lines.push(make("div", "row", name, make("span", "share", share)));
      if (end - begin > 1 || odds.bits[at] === null) continue;
      for (const [text, p, id] of odds.alternatives[at].slice(0, 4)) {
        if (id === reading.ids[at]) continue;
        lines.push(make("div", "row other", make("span", "name", text),
          make("span", "share", percent(p))));
      }
    }
    return make("div", "", title, ...lines);
  };
  const nodes = data.segments.map((segment) => {
    const blank = segment[0].trim() === "" ? segment[0].replaceAll(" ", "␣") : segment[0];
    const node = make("span", `token ${bandOf(segment)}`, blank.replaceAll("\n", "↵"));
    node.tabIndex = 0;
    const show = () => {
      box.querySelector(".shown")?.classList.remove("shown");
      node.classList.add("shown");
      detail.replaceChildren(column(0, segment), column(1, segment));
    };
    for (const kind of ["mouseover", "focus", "click"]) node.addEventListener(kind, show);
    return node;
  });
  data.segments.forEach(([text], at) => {
    box.append(nodes[at]);
    if (text.endsWith("\n")) box.append("\n");
  });
  root.append(
    make("div", "scroll", table),
    make("div", "controls", legend),
    make("div", "columns", box, detail),
  );
};
