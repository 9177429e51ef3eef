// Runs an exported folder with transformers.js.
// Argument: the folder. Standard input, as JSON: {texts, prompts, messages, n}.
// Standard output, as JSON: {tokens: of each text; generated: n tokens after each prompt, without it;
// chat: the messages in the chat template}.
import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, env } from "@huggingface/transformers";

const folder = resolve(process.argv[2]);
const { texts, prompts, messages, n } = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);

const name = basename(folder);
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModelForCausalLM.from_pretrained(name);
const generated = [];
for (const prompt of prompts) {
  const inputs = tokenizer(prompt);
  const begin = inputs.input_ids.dims[1];
  const output = await model.generate({ ...inputs, max_new_tokens: n, do_sample: false });
  generated.push(output.tolist()[0].slice(begin).map(Number));
}
const chat = messages.length
  ? tokenizer.apply_chat_template(messages, { tokenize: false, add_generation_prompt: true })
  : "";
const tokens = texts.map((text) => tokenizer.encode(text));
process.stdout.write(JSON.stringify({ tokens, generated, chat }));
