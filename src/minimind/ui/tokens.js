// Shows what else was likely at a token: on hover and on focus, for good after a click.
// Everything goes in as textContent: what a model wrote never becomes markup.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

const row = (text, share, percent, name) => {
  const line = make("div", `mm-row ${name}`);
  line.append(make("span", "mm-name", text), make("span", "mm-share", percent));
  const bar = make("span", "mm-bar");
  bar.style.width = `${Math.max(0.5, 100 * share)}%`;
  line.append(bar);
  return line;
};

const show = (token) => {
  const panel = element.querySelector(".mm-detail");
  const detail = JSON.parse(token.dataset.detail);
  const lines = detail.rows.map(([text, share, percent, chosen]) => {
    const line = row(text, share, percent, chosen ? "mm-chosen" : "");
    if (chosen) line.firstChild.append(make("em", "", ` ${detail.chosen}`));
    return line;
  });
  if (detail.note) lines.at(-1).firstChild.append(make("em", "", ` ${detail.note}`));
  lines.push(row(detail.rest[0], detail.rest[1], detail.rest[2], "mm-rest"));
  const title = make("h4", "", detail.title);
  title.append(make("span", "", detail.surprise));
  panel.replaceChildren(title, ...lines);
  element.querySelector(".mm-shown")?.classList.remove("mm-shown");
  token.classList.add("mm-shown");
};

const tokenAt = (event) => event.target.closest?.(".mm-text .mm-token");
const pinned = () => element.querySelector(".mm-pinned");

element.addEventListener("mouseover", (event) => {
  const token = tokenAt(event);
  if (token && !pinned()) show(token);
});
element.addEventListener("focusin", (event) => {
  const token = tokenAt(event);
  if (token && !pinned()) show(token);
});
element.addEventListener("click", (event) => {
  const token = tokenAt(event);
  const before = pinned();
  before?.classList.remove("mm-pinned");
  if (!token || token === before) return;
  token.classList.add("mm-pinned");
  show(token);
});
element.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const token = tokenAt(event);
  if (!step || !token) return;
  const all = [...element.querySelectorAll(".mm-text .mm-token")];
  pinned()?.classList.remove("mm-pinned");
  all[all.indexOf(token) + step]?.focus();
  event.preventDefault();
});
