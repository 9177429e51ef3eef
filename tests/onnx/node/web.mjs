// Runs an exported graph in ONNX Runtime Web's WebAssembly, which is what browsers run.
// transformers.js depends on it, and takes onnxruntime-node instead where it runs on Node.
// Argument: the folder. Standard input, as JSON: tokens.
// Standard output, as JSON: the likeliest next token after each of them.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-web";

const folder = process.argv[2];
const tokens = JSON.parse(readFileSync(0, "utf8"));
const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
const name = "model.onnx_data";
const data = { path: name, data: readFileSync(join(folder, "onnx", name)) };
ort.env.logLevel = "error";
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(join(folder, "onnx", "model.onnx")), {
  executionProviders: ["wasm"],
  externalData: [data],
  logSeverityLevel: 3,
});

const int64 = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
const empty = [1, config.num_key_value_heads, 0, config.head_dim];
const feeds = { input_ids: int64(tokens), attention_mask: int64(tokens.map(() => 1)) };
for (const input of session.inputNames) {
  if (input.startsWith("past_key_values.")) {
    feeds[input] = new ort.Tensor("float32", new Float32Array(0), empty);
  }
}
const { logits } = await session.run(feeds);
const size = logits.dims[2];
const best = tokens.map((_, i) => {
  const row = logits.data.subarray(i * size, (i + 1) * size);
  return row.reduce((at, value, token) => (value > row[at] ? token : at), 0);
});
process.stdout.write(JSON.stringify(best));
