// Whole answers: node examples/generate-once.mjs 127.0.0.1:4000 models/documents/document-02.png
import { readFile } from "node:fs/promises";
import { FinishReason, Role, TesseraClient } from "@tessera/client";

const [address, file] = process.argv.slice(2);
const client = new TesseraClient({ addresses: [address] });
const picture = { content: { case: "image", value: { data: await readFile(file) } } };
const ask = (text) => [
  { role: Role.USER, parts: [picture, { content: { case: "text", value: text } }] },
];

const { choices, usage } = await client.generateOnce({
  messages: ask("What is the total?"),
  maxTokens: 32,
  topLogprobs: 0,
});
const [{ text, finished, logprobs }] = choices;
console.log(text, FinishReason[finished.reason], usage.completionTokens);
console.log(logprobs.every(({ logprob }) => logprob <= 0));

const warm = await client.generateOnce({
  messages: ask("What is the date?"),
  maxTokens: 8,
  n: 3,
  sampling: { temperature: 0.7, topP: 0.9, seed: 7n },
});
console.log(warm.choices.length, "choices with seed", String(warm.started.seed));
client.close();
