// Copies what the page loads out of node_modules into vendor/, so that any static server will do.
import { copyFileSync, mkdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const files = [
  ["@huggingface/transformers", "dist", "transformers.min.js"],
  ["@huggingface/transformers", "", "LICENSE"],
  // The plain WebAssembly build: half the size of the one with WebGPU.
  ["onnxruntime-web", "dist", "ort-wasm-simd-threaded.mjs"],
  ["onnxruntime-web", "dist", "ort-wasm-simd-threaded.wasm"],
];

mkdirSync(join(here, "vendor"), { recursive: true });
for (const [name, folder, file] of files) {
  const target = join(here, "vendor", file);
  copyFileSync(join(here, "node_modules", name, folder, file), target);
  console.log(`vendor/${file}  ${(statSync(target).size / 1e6).toFixed(1)} MB`);
}
