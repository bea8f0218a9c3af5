// What fails, and how it says so: node examples/errors.mjs 127.0.0.1:4000
import { Role, TesseraClient, TesseraError } from "@tessera/client";

const [address] = process.argv.slice(2);
const client = new TesseraClient({ addresses: [address], deadlineMs: 30_000 });
const messages = [{ role: Role.USER, parts: [{ content: { case: "text", value: "Hello" } }] }];

async function report(run) {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof TesseraError)) throw error;
    console.log(error.code, error.retryable, error.violations.map(({ field }) => field).join());
  }
}
await report(() => client.generateOnce({ messages, sampling: { topP: 0 } }));
await report(() => client.generateOnce({ messages, model: "another" }));
await report(() =>
  client.generateOnce({ messages, minTokens: 3000, maxTokens: 3000 }, { deadlineMs: 100 }),
);
const nowhere = new TesseraClient({ addresses: ["127.0.0.1:1"] });
await report(() => nowhere.generateOnce({ messages }));

// With several addresses a call goes to the next one while it has not started.
const several = new TesseraClient({ addresses: ["127.0.0.1:1", address] });
console.log((await several.getModel()).name);
for (const each of [client, nowhere, several]) each.close();
