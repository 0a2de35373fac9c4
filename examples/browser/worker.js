// The model, off the page's thread: loads it, renders the conversation, generates, reports.
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  InterruptableStoppingCriteria,
  TextStreamer,
  env,
} from "./vendor/transformers.min.js";

const here = (name) => new URL(name, import.meta.url).href;

env.allowRemoteModels = false; // nothing is asked of any other host
env.allowLocalModels = true;
env.useBrowserCache = false; // a new export at the same address must be seen
env.useWasmCache = false;
env.backends.onnx.wasm.wasmPaths = {
  mjs: here("vendor/ort-wasm-simd-threaded.mjs"),
  wasm: here("vendor/ort-wasm-simd-threaded.wasm"),
};

const stopper = new InterruptableStoppingCriteria();
let model, tokenizer, context;
let stopped = false;

// A page's messages (stop!) are handled only between tasks, and WebAssembly gives way to none.
const channel = new MessageChannel();
const breathe = () =>
  new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });

async function load({ url, dtype, threads }) {
  env.backends.onnx.wasm.numThreads = threads;
  // A path, not an address: transformers.js takes an address for a remote model.
  const parts = new URL(url).pathname.split("/").filter(Boolean);
  const name = decodeURIComponent(parts.pop());
  env.localModelPath = `/${parts.map((part) => `${part}/`).join("")}`;
  const options = {
    device: "wasm",
    progress_callback: (event) => {
      if (event.status === "progress" && event.file.endsWith(".onnx"))
        postMessage({ type: "loading", file: event.file, loaded: event.loaded, total: event.total });
    },
  };
  if (dtype) options.dtype = dtype;
  const started = performance.now();
  tokenizer = await AutoTokenizer.from_pretrained(name);
  model = await AutoModelForCausalLM.from_pretrained(name, options);
  const forward = model.forward.bind(model);
  model.forward = async (inputs) => {
    await breathe();
    return forward(inputs);
  };
  context = model.config.max_position_embeddings;
  postMessage({ type: "ready", context, threads, seconds: (performance.now() - started) / 1000 });
}

// What a user types is text: it can't open or close a turn.
const plain = (text) => text.replaceAll("<|", "<\u200b|");

function render(messages) {
  const safe = messages.map(({ role, content }) => ({ role, content: plain(content) }));
  return tokenizer.apply_chat_template(safe, { add_generation_prompt: true, return_dict: true });
}

// The oldest turns go first when the conversation outgrows the context.
function fit(messages, room) {
  let kept = messages;
  let inputs = render(kept);
  while (kept.length > 1 && inputs.input_ids.dims[1] > context - room) {
    kept = kept.slice(2);
    inputs = render(kept);
  }
  return { inputs, dropped: messages.length - kept.length };
}

async function answer({ messages, temperature, penalty, limit }) {
  const { inputs, dropped } = fit(messages, Math.min(limit, context / 4));
  const prompt = inputs.input_ids.dims[1];
  if (prompt >= context) throw new Error(`context:${prompt}:${context}`);
  stopper.reset();
  stopped = false;
  const started = performance.now();
  let first = 0;
  let tokens = 0;
  const report = () => ({
    tokens,
    prompt,
    dropped,
    wait: (first - started) / 1000,
    rate: tokens > 1 ? (tokens - 1) / ((performance.now() - first) / 1000) : 0,
  });
  const streamer = new TextStreamer(tokenizer, {
    skip_prompt: true,
    skip_special_tokens: true,
    token_callback_function: () => {
      first ||= performance.now();
      tokens += 1;
      postMessage({ type: "text", text: "", ...report() }); // the figures move with every token
    },
    callback_function: (text) => postMessage({ type: "text", text, ...report() }),
  });
  const output = await model.generate({
    ...inputs,
    max_new_tokens: Math.min(limit, context - prompt),
    do_sample: temperature > 0,
    ...(temperature > 0 ? { temperature, top_k: 50 } : {}),
    repetition_penalty: penalty,
    streamer,
    stopping_criteria: stopper,
  });
  const ids = output.tolist()[0].slice(prompt).map(Number);
  postMessage({ type: "done", ids, stopped, ...report() });
}

function stop() {
  stopped = true;
  stopper.interrupt();
}

const actions = { load, answer, stop };

self.onmessage = async ({ data }) => {
  try {
    await actions[data.type](data);
  } catch (error) {
    postMessage({ type: "error", during: data.type, message: String(error?.message ?? error) });
  }
};
