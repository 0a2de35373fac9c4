// The text in the colours of the experts that took its tokens, what each expert got, and whose
// tokens they are, layer by layer.
panels.experts = (root, data, reading) => {
  const count = data.experts;
  const all = [...Array(count).keys()];
  const layers = [...data.chosen.keys()];
  const even = data.choices / count;
  let layer = layers.length >> 1;
  const paint = (node, expert, strength = 1) => {
    const hue = Math.round((360 * expert) / count + 15) % 360;
    node.style.background = `hsl(${hue} 75% ${Math.round(94 - 18 * strength)}%)`;
    node.style.color = "#17202e";
    return node;
  };
  const shares = (at) => {
    const got = all.map(() => 0);
    for (const token of data.chosen[at]) for (const expert of token) got[expert] += 1;
    return got.map((n) => n / data.chosen[at].length);
  };

  // Layers by experts: how many of this text's tokens each one took.
  const grid = make("table", "heads loads");
  grid.append(make("thead", "", make("tr", "", make("th"), ...all.map((e) => paint(make("th", "", `E${e}`), e)))));
  const rows = make("tbody");
  for (const at of layers) {
    const cells = shares(at).map((share) => {
      const times = share / even;
      const band = [0.5, 0.8, 1.25, 2].filter((edge) => times >= edge).length;
      const cell = make("td", `sure${band}`, `${(100 * share).toFixed(0)}`);
      return cell;
    });
    rows.append(make("tr", "", make("th", "", `L${at}`), ...cells));
  }
  grid.append(rows);

  const readout = say(make("p", "readout"), "experts_point");
  readout.setAttribute("aria-live", "polite");
  const text = strip(reading, {
    onShow: (at) => {
      const parts = data.chosen[layer][at].map(
        (expert, n) => `E${expert} ${percent(data.weights[layer][at][n])}`,
      );
      say(readout, "experts_token", { n: at + 1, text: reading.tokens[at], experts: parts.join(" · ") });
    },
  });

  const lists = make("table", "experts-tokens");
  const show = (at) => {
    layer = at;
    text.nodes.forEach((node, t) => paint(node, data.chosen[at][t][0], data.weights[at][t][0]));
    const got = shares(at);
    lists.replaceChildren(
      ...all.map((expert) => {
        const times = new Map();
        data.chosen[at].forEach((token, t) => {
          if (!token.includes(expert)) return;
          const shown = reading.tokens[t] || "∅";
          times.set(shown, (times.get(shown) ?? 0) + 1);
        });
        const most = [...times].sort((a, b) => b[1] - a[1]).slice(0, 24);
        const cell = make("td");
        for (const [token, n] of most) {
          cell.append(make("span", "key", n > 1 ? `${token} ×${n}` : token), " ");
        }
        return make("tr", "", paint(make("th", "", `E${expert}`), expert), make("td", "number", `${(100 * got[expert]).toFixed(0)} %`), cell);
      }),
    );
  };
  const pick = choice(layers.map((at) => [at, null, `L${at}`]), layer, (at) => show(Number(at)));
  root.append(
    say(make("p", "summary"), "experts_loads", { even: (100 * even).toFixed(0) }), grid,
    make("div", "controls", say(make("span"), "experts_layer"), pick), text.box, readout,
    say(make("p", "summary"), "experts_whose"), lists,
  );
  show(layer);
};
