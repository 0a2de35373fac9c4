"use strict";
// The frame of the page: words in two languages, the theme, strips of tokens, and where each panel
// goes. A panel is `panels.NAME = (root, data, reading, page) => ...`; what it writes goes in as
// textContent, so that what a model wrote never becomes markup.
const panels = {};
const page = { data: null, language: "en", shown: 0, opened: {}, redraw: new Set() };

const fill = (template, values) =>
  template.replace(/\{(\w+)\}/g, (_, name) => (name in values ? values[name] : ""));
const word = (key, values = {}) => {
  const ready = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, typeof value === "function" ? value() : value]),
  );
  return fill(page.data.words[key][page.language === "zh" ? 0 : 1], ready);
};

// Nodes remember what they say, so that another language needs no redrawing.
const said = new WeakMap();
const say = (node, key, values = {}) => {
  said.set(node, [key, values]);
  node.dataset.says = key;
  node.textContent = word(key, values);
  return node;
};
const label = (node, key, values = {}) => {
  node.dataset.label = key;
  const text = word(key, values);
  node.setAttribute("aria-label", text);
  node.title = text;
  return node;
};
const speak = () => {
  document.documentElement.lang = page.language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-says]")) say(node, ...said.get(node));
  for (const node of document.querySelectorAll("[data-label]")) label(node, node.dataset.label);
};

const make = (tag, name = "", ...children) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children);
  return node;
};
const percent = (p) => {
  const value = 100 * p;
  if (value >= 99.95) return "100 %";
  if (value < 0.01) return "< 0.01 %";
  return `${value.toFixed(value >= 1 ? 1 : 2)} %`;
};
const thousands = (n) => n.toLocaleString("en-US");
const compact = (n) =>
  n >= 1e9 ? `${(n / 1e9).toFixed(2)}B` : n >= 1e6 ? `${(n / 1e6).toFixed(2)}M` : thousands(n);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A row of buttons of which one is on. `onPick` gets its value.
const choice = (options, chosen, onPick) => {
  const group = make("div", "choice");
  group.setAttribute("role", "group");
  const pick = (value) => {
    for (const button of group.children) {
      button.setAttribute("aria-pressed", String(button.dataset.value === String(value)));
    }
  };
  for (const [value, key, values] of options) {
    const button = make("button");
    button.type = "button";
    button.dataset.value = value;
    key === null ? (button.textContent = values) : say(button, key, values);
    button.addEventListener("click", () => {
      pick(value);
      onPick(value);
    });
    group.append(button);
  }
  pick(chosen);
  group.pick = pick;
  return group;
};

// The text as tokens that can be pointed at, tapped, and walked through with the arrow keys.
// `onShow(at)` on hover and focus, unless one is held; `onHold(at or null)` after a click.
const strip = (reading, { onShow, onHold = () => {}, holds = true }) => {
  const box = make("div", "text");
  const control = new Set(reading.control);
  const nodes = reading.tokens.map((text, at) => {
    if (at === reading.generated) box.append(say(make("span", "from"), "generated"));
    const node = make("span", "token");
    node.textContent = text === "" ? "∅" : text;
    node.dataset.at = at;
    node.tabIndex = at === 0 ? 0 : -1;
    if (control.has(at)) node.classList.add("control");
    box.append(node);
    if (text.endsWith("↵")) box.append("\n");
    return node;
  });
  let held = null;
  const mark = (at) => {
    box.querySelector(".shown")?.classList.remove("shown");
    nodes[at].classList.add("shown");
  };
  const show = (at) => {
    mark(at);
    onShow(at);
  };
  const hold = (at) => {
    if (held !== null) nodes[held].classList.remove("held");
    held = at;
    if (at !== null) nodes[at].classList.add("held");
    onHold(at);
  };
  const at = (event) => {
    const node = event.target.closest?.(".token");
    return node ? Number(node.dataset.at) : null;
  };
  for (const kind of ["mouseover", "focusin"]) {
    box.addEventListener(kind, (event) => {
      const here = at(event);
      if (here !== null && held === null) show(here);
    });
  }
  box.addEventListener("click", (event) => {
    const here = at(event);
    if (here === null) return;
    show(here);
    if (holds) hold(here === held ? null : here);
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const here = at(event);
    if (event.key === "Enter" && here !== null) event.target.click();
    if (!step || here === null) return;
    const next = nodes[here + step];
    event.preventDefault();
    if (!next) return;
    hold(null);
    nodes[here].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return { box, nodes, mark, show };
};

const section = (name, parent) => {
  const root = make("section", `panel ${name}`);
  root.id = name;
  const look = make("p", "look");
  look.append(say(make("b"), "look"), say(make("span"), `${name}_look`));
  root.append(say(make("h2"), `${name}_title`), look);
  parent.append(root);
  const body = make("div", "body");
  root.append(body);
  return body;
};

const facts = (reading) => {
  const { facts: f } = reading;
  const line = make("p", "facts");
  const values = {
    parameters: compact(f.parameters), layers: f.layers, heads: f.heads,
    vocabulary: thousands(f.vocabulary), context: thousands(f.context),
  };
  const count = { tokens: thousands(reading.tokens.length), characters: thousands(f.characters) };
  line.append(say(make("span"), "facts", values), say(make("span"), "read", count));
  const wrote = reading.tokens.length - reading.generated;
  if (wrote > 0) line.append(say(make("span"), "wrote", { n: thousands(wrote) }));
  return line;
};

const drawPanels = (holder) => {
  page.redraw.clear();
  page.opened = {};
  const reading = page.data.readings[page.shown];
  holder.replaceChildren(facts(reading));
  for (const name of page.data.panels) {
    const data = reading.panels[name];
    if (data) panels[name](section(name, holder), data, reading, page);
  }
};

const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  for (const redraw of page.redraw) redraw();
};

const header = () => {
  const { readings } = page.data;
  const bar = make("header");
  const title = make("h1");
  if (readings.length === 2) {
    say(title, "inside_two", { one: readings[0].name, two: readings[1].name });
  } else say(title, "inside", { name: readings[0].name });
  const language = say(make("button"), "language");
  language.id = "language";
  language.addEventListener("click", () => {
    page.language = page.language === "zh" ? "en" : "zh";
    speak();
    for (const redraw of page.redraw) redraw();
  });
  const theme = label(make("button"), "theme");
  theme.id = "theme";
  theme.textContent = "◐";
  theme.addEventListener("click", () =>
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
  );
  bar.append(title, make("div", "buttons", language, theme));
  return bar;
};

const start = () => {
  page.data = JSON.parse(document.getElementById("data").textContent);
  const asked = page.data.language;
  page.language = asked === "auto" ? (navigator.language.startsWith("zh") ? "zh" : "en") : asked;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  const main = document.getElementById("page");
  const holder = make("div");
  main.append(header());
  if (page.data.beside) {
    panels.beside(section("beside", main), page.data.beside, page.data.readings, page);
    const options = page.data.readings.map((reading, at) => [at, null, reading.name]);
    const which = choice(options, 0, (at) => {
      page.shown = Number(at);
      drawPanels(holder);
    });
    which.id = "which";
    main.append(make("div", "which", say(make("span"), "reading"), which));
  }
  main.append(holder, say(make("footer"), "foot"));
  drawPanels(holder);
  speak();
};
