// Every head as a small map; one of them large, with the text shaded by where a token looks.
// A map is a lower triangle of bytes by rows; a byte is `levels` times the root of the weight.
panels.attention = (root, data, reading, page) => {
  const T = reading.tokens.length;
  const triangle = (T * (T + 1)) / 2;
  const H = data.heads.length;
  const state = { place: 0, head: 0, query: T - 1 };
  let bytes = null;

  const unpack = async () => {
    const packed = Uint8Array.from(atob(data.maps), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const offset = (place, head) => (place * H + head) * triangle;
  const level = (place, head, t, s) => bytes[offset(place, head) + (t * (t + 1)) / 2 + s];
  const weight = (value) => (value / data.levels) ** 2;
  const about = (value) => {
    const share = 100 * weight(value);
    return value === 0 ? "≈ 0 %" : `≈ ${share.toFixed(share >= 10 ? 0 : share >= 1 ? 1 : 2)} %`;
  };

  const rgb = (name) => {
    const value = parseInt(colour(name).slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  };
  const palette = () => {
    const stops = ["--ramp0", "--ramp1", "--ramp2", "--ramp3"].map(rgb);
    return Array.from({ length: data.levels + 1 }, (_, i) => {
      const x = (i / data.levels) ** (2 / 3) * (stops.length - 1); // the cube root of the weight
      const low = Math.min(stops.length - 2, Math.floor(x));
      return stops[low].map((from, c) => from + (stops[low + 1][c] - from) * (x - low));
    });
  };
  // Cells that share a pixel show their largest: thin lines must not vanish.
  const draw = (canvas, place, head, colours, most) => {
    const N = Math.min(T, most);
    const largest = new Uint8Array(N * N);
    const start = offset(place, head);
    for (let t = 0, at = start; t < T; t += 1) {
      const y = Math.floor((t * N) / T) * N;
      for (let s = 0; s <= t; s += 1, at += 1) {
        const cell = y + Math.floor((s * N) / T);
        if (bytes[at] > largest[cell]) largest[cell] = bytes[at];
      }
    }
    canvas.width = canvas.height = N;
    const context = canvas.getContext("2d");
    const image = context.createImageData(N, N);
    for (let y = 0; y < N; y += 1) {
      for (let x = 0; x <= y; x += 1) {
        const cell = y * N + x;
        const [r, g, b] = colours[largest[cell]];
        image.data.set([r, g, b, 255], 4 * cell);
      }
    }
    context.putImageData(image, 0, 0);
  };

  // Small maps.
  const grid = make("div", "maps");
  grid.style.setProperty("--heads", H);
  const small = [];
  data.layers.forEach((layer, place) => {
    const name = say(make("div", "layer"), "attention_layer", { n: layer });
    if (data.windows[place]) {
      name.append(" ", say(make("small"), "attention_window", { n: data.windows[place] }));
      delete name.dataset.says; // its first words are a node of their own
      name.replaceChildren(say(make("span"), "attention_layer", { n: layer }), name.lastChild);
    }
    grid.append(name);
    data.heads.forEach((head, h) => {
      const canvas = make("canvas");
      const button = make("button", "map", canvas);
      button.type = "button";
      button.title = `L${layer} H${head}`;
      button.setAttribute("aria-label", button.title);
      button.addEventListener("click", () => open(place, h));
      grid.append(button);
      small.push({ button, canvas, place, head: h });
    });
  });

  // The large one.
  const select = (numbers, key, onPick) => {
    const node = make("select");
    numbers.forEach((number, at) => {
      const option = say(make("option"), key, { n: number });
      option.value = at;
      node.append(option);
    });
    node.addEventListener("change", () => onPick(Number(node.value)));
    return node;
  };
  const layers = select(data.layers, "attention_layer", (place) => open(place, state.head));
  const heads = select(data.heads, "attention_head", (head) => open(state.place, head));
  layers.id = "layer";
  heads.id = "head";
  const canvas = make("canvas", "large");
  canvas.setAttribute("role", "img");
  const line = make("div", "line");
  const cross = make("div", "cross");
  const frame = make("div", "frame", canvas, line, cross);
  const readout = make("p", "readout");
  const { box, nodes, mark } = strip(reading, { onShow: (at) => ask(at), holds: false });

  const place = (event) => {
    const size = canvas.getBoundingClientRect();
    const clamp = (x) => Math.max(0, Math.min(T - 1, Math.floor(x * T)));
    return [clamp((event.clientY - size.top) / size.height),
      clamp((event.clientX - size.left) / size.width)];
  };
  const quote = (at) => reading.tokens[at] || "∅";
  const shade = () => {
    const t = state.query;
    let most = 1;
    for (let s = 0; s <= t; s += 1) most = Math.max(most, level(state.place, state.head, t, s));
    nodes.forEach((node, s) => {
      const here = s <= t ? level(state.place, state.head, t, s) : 0;
      const strength = weight(here) / weight(most);
      node.style.setProperty("--look", `${Math.round(85 * Math.sqrt(strength))}%`);
      node.classList.toggle("seen", strength > 0.002);
      node.classList.toggle("strong", strength > 0.68);
      node.classList.toggle("later", s > t);
      node.title = s <= t ? about(here) : "";
    });
    mark(t);
    line.style.top = `${(100 * (t + 0.5)) / T}%`;
    say(readout, "attention_row", { query: quote(t), t: t + 1 });
  };
  const ask = (t) => {
    if (!bytes) return;
    state.query = t;
    shade();
  };
  canvas.addEventListener("mousemove", (event) => {
    const [t, s] = place(event);
    const inside = s <= t;
    cross.hidden = !inside;
    if (!inside || !bytes) return say(readout, "attention_row", {
      query: quote(state.query), t: state.query + 1 });
    cross.style.left = `${(100 * (s + 0.5)) / T}%`;
    cross.style.top = `${(100 * (t + 0.5)) / T}%`;
    const share = about(level(state.place, state.head, t, s));
    return say(readout, "attention_at", {
      query: quote(t), t: t + 1, key: quote(s), s: s + 1, share });
  });
  canvas.addEventListener("mouseleave", () => {
    cross.hidden = true;
    if (bytes) shade();
  });
  canvas.addEventListener("click", (event) => {
    const [t] = place(event);
    ask(t);
    nodes[t].scrollIntoView({ block: "nearest" });
  });

  const open = (where, head) => {
    if (!bytes) return;
    state.place = where;
    state.head = head;
    layers.value = where;
    heads.value = head;
    for (const one of small) {
      const on = one.place === where && one.head === head;
      one.button.setAttribute("aria-pressed", String(on));
    }
    draw(canvas, where, head, palette(), 1024);
    canvas.setAttribute("aria-label", `L${data.layers[where]} H${data.heads[head]}`);
    shade();
  };
  page.opened.attention = (layer, head) => {
    open(data.layers.indexOf(layer), data.heads.indexOf(head));
    frame.scrollIntoView({ block: "center" });
  };
  const drawAll = () => {
    if (!bytes) return;
    const colours = palette();
    for (const one of small) draw(one.canvas, one.place, one.head, colours, 160);
    open(state.place, state.head);
  };

  cross.hidden = true;
  root.append(
    make("div", "columns views", make("div", "scroll every", grid), frame),
    make("div", "controls", layers, heads, readout),
    box,
    say(make("p", "summary"), "attention_scale"),
  );
  if (typeof DecompressionStream === "undefined") {
    root.replaceChildren(say(make("p", "summary"), "attention_old"));
    return;
  }
  unpack().then((unpacked) => {
    bytes = unpacked;
    page.redraw.add(drawAll);
    drawAll();
    root.dataset.ready = "yes";
  });
};
