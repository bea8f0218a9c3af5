// An answer that outlives its connections: node examples/resume.mjs 127.0.0.1:4000
import { Role, TesseraClient, TesseraError } from "@tessera/client";

const [address] = process.argv.slice(2);
const client = new TesseraClient({ addresses: [address] });
const parts = [{ content: { case: "text", value: "What is the name?" } }];
const request = { messages: [{ role: Role.USER, parts }], maxTokens: 16, resume: true };

// A cut connection is made again by itself: no event is missing, none comes twice.
let text = "";
for await (const { kind } of client.generate({ ...request, requestId: "example-resume" }))
  if (kind.case === "delta") text += kind.value.text;

// The same id and request within the grace time, from this process or another: the same stream again.
let again = "";
for await (const { kind } of client.generate({ ...request, requestId: "example-resume" }))
  if (kind.case === "delta") again += kind.value.text;
console.log(again === text ? "the same text" : "another text");

try {
  const other = { ...request, requestId: "example-resume", maxTokens: 8 };
  for await (const _ of client.generate(other));
} catch (error) {
  if (!(error instanceof TesseraError)) throw error;
  console.log(error.code);
}
client.close();
