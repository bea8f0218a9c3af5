// An answer that is ended by its reader: node examples/abort.mjs 127.0.0.1:4000
import { Role, TesseraClient, TesseraError } from "@tessera/client";

const [address] = process.argv.slice(2);
const client = new TesseraClient({ addresses: [address] });
const parts = [{ content: { case: "text", value: "Read the text." } }];
const controller = new AbortController();
const request = { messages: [{ role: Role.USER, parts }], minTokens: 2000, maxTokens: 2000 };

let pieces = 0;
try {
  for await (const { kind } of client.generate(request, { signal: controller.signal }))
    if (kind.case === "delta" && ++pieces === 3) controller.abort();
} catch (error) {
  if (!(error instanceof TesseraError)) throw error;
  console.log(`${error.code} after ${pieces} pieces`);
}

// Leaving the loop ends the request as well.
for await (const { kind } of client.generate(request)) if (kind.case === "delta") break;
console.log("left");
client.close();
