// An answer as it is made: node examples/generate.mjs 127.0.0.1:4000 models/documents/document-02.png
import { readFile } from "node:fs/promises";
import { Role, TesseraClient } from "@tessera/client";

const [address, file] = process.argv.slice(2);
const client = new TesseraClient({ addresses: [address] });
const picture = { content: { case: "image", value: { data: await readFile(file) } } };
const question = { content: { case: "text", value: "Read the text." } };

const messages = [{ role: Role.USER, parts: [picture, question] }];
for await (const { kind } of client.generate({ messages, maxTokens: 64 })) {
  if (kind.case === "started") console.log(`${kind.value.promptTokens} prompt tokens`);
  if (kind.case === "delta") process.stdout.write(kind.value.text);
  if (kind.case === "done") console.log(`\n${kind.value.usage.completionTokens} tokens made`);
}
client.close();
