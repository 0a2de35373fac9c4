// The page: conversation, buttons, words. The model is in worker.js.
//
// Address: ?model=DIR (default model/)  &dtype=q8|fp16|fp32 (default: the export's smallest)
//          &lang=zh|en  &temperature=0.7  &penalty=1.1  &limit=256  &threads=N
import { WORDS } from "./words.js";

const query = new URLSearchParams(location.search);
const by = (id) => document.getElementById(id);
const number = (name, otherwise) => (query.has(name) ? Number(query.get(name)) : otherwise);

const settings = { penalty: number("penalty", 1.1), limit: number("limit", 256) };
const cores = Math.min(4, navigator.hardwareConcurrency || 1);
// Several threads need memory that is shared, which browsers give to isolated pages only.
const threads = crossOriginIsolated ? number("threads", cores) : 1;

let language = query.get("lang") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (!(language in WORDS)) language = "en";
let messages = []; // {role, content}: the conversation as the template wants it
let live = null; // the turn that is being written
let state = "loading"; // loading | ready | busy | failed
let about = null; // what the worker said when it was ready
let bytes = { loaded: 0, total: 0 };

by("temperature").value = number("temperature", 0.7);

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
worker.postMessage({
  type: "load",
  url: new URL(query.get("model") ?? "model/", location.href).href,
  dtype: query.get("dtype"),
  threads,
});

const received = {
  loading(event) {
    bytes = event;
    by("progress").firstElementChild.style.width = `${(100 * event.loaded) / event.total}%`;
    speak();
  },
  ready(event) {
    about = event;
    by("progress").classList.add("done");
    enter("ready");
  },
  text(event) {
    live.bubble.textContent += event.text;
    live.stats.textContent = statistics(event);
    follow();
  },
  done(event) {
    live.turn.classList.remove("live");
    live.turn.dataset.ids = event.ids.join(",");
    live.turn.dataset.rate = event.rate;
    live.stats.textContent = statistics(event);
    messages.push({ role: "assistant", content: live.bubble.textContent });
    live = null;
    enter("ready");
  },
  error(event) {
    const words = WORDS[language];
    const long = /^context:(\d+):(\d+)$/.exec(event.message);
    const text = long ? words.long(long[1], long[2]) : words.failed + event.message;
    if (live) {
      live.turn.remove();
      live = null;
      messages.pop(); // the question that got no answer
    }
    add("error", event.during === "load" ? `${words.missing}\n${event.message}` : text);
    enter(event.during === "load" ? "failed" : "ready");
  },
};
worker.onmessage = ({ data }) => received[data.type](data);
worker.onerror = (event) => received.error({ during: "load", message: event.message ?? "worker.js" });

function statistics(event) {
  const words = WORDS[language];
  const parts = [words.stats(event.tokens, event.rate.toFixed(0), event.wait.toFixed(2))];
  if (event.stopped) parts.push(words.stopped);
  if (event.dropped) parts.push(words.dropped(event.dropped));
  return parts.join(" · ");
}

function add(kind, text) {
  const turn = document.createElement("div");
  turn.className = `turn ${kind}`;
  const bubble = document.createElement("div");
  bubble.className = "bubble";
  bubble.textContent = text;
  const stats = document.createElement("div");
  stats.className = "stats";
  turn.append(bubble, stats);
  by("log").append(turn);
  by("welcome").hidden = true;
  follow();
  return { turn, bubble, stats };
}

function follow() {
  by("log").scrollTop = by("log").scrollHeight;
}

function enter(next) {
  state = next;
  document.body.dataset.state = state;
  by("prompt").disabled = state === "loading" || state === "failed";
  speak();
  if (state === "ready") by("prompt").focus();
}

// Write every word of the page in the chosen language, for the state that it is in.
function speak() {
  const words = WORDS[language];
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]"))
    element.textContent = words[element.dataset.word];
  by("prompt").placeholder = words.placeholder;
  by("temperature").title = words.greedy;
  by("send").textContent = state === "busy" ? words.stop : words.send;
  by("send").className = state === "busy" ? "stop" : "";
  by("send").disabled = state === "loading" || state === "failed";
  by("dot").className = `dot ${state}`;
  const size = `${(bytes.total / 1e6).toFixed(1)} MB`;
  by("model").textContent = about
    ? `${bytes.file?.split("/").pop() ?? ""} · ${size} · ${words.ready(about.context, about.threads)}`
    : `${words.loading} ${bytes.total ? `${(bytes.loaded / 1e6).toFixed(1)} / ${size}` : "…"}`;
  const buttons = words.examples.map((text) => {
    const button = document.createElement("button");
    button.textContent = text;
    button.disabled = state !== "ready";
    button.onclick = () => ask(text);
    return button;
  });
  by("examples").replaceChildren(...buttons);
}

function ask(text) {
  if (state !== "ready" || !text.trim()) return;
  add("user", text.trim());
  messages.push({ role: "user", content: text.trim() });
  live = add("assistant live", "");
  by("prompt").value = "";
  enter("busy");
  const temperature = Number(by("temperature").value) || 0;
  worker.postMessage({ type: "answer", messages, temperature, ...settings });
}

by("form").onsubmit = (event) => {
  event.preventDefault();
  if (state === "busy") worker.postMessage({ type: "stop" });
  else ask(by("prompt").value);
};
by("prompt").onkeydown = (event) => {
  // While an input method composes (Chinese), Enter chooses a word.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (state === "ready") ask(by("prompt").value);
  }
};
by("fresh").onclick = () => {
  if (state === "busy") return;
  messages = [];
  for (const turn of document.querySelectorAll(".turn")) turn.remove();
  by("welcome").hidden = false;
  speak();
};
by("language").onclick = () => {
  language = language === "zh" ? "en" : "zh";
  speak();
};
enter("loading");
