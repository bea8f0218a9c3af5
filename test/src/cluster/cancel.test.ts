/** Streams cut off at their very first moments: nothing of them is left on the coordinator or on a rank. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serve } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { root } from "../harness/paths.js";
import { heldCount } from "../harness/shard-stats.js";

const { client, stop } = await serve(2);
after(stop);
const pictures = await Promise.all(
  [1, 2, 3, 4, 5, 7].map((n) => readFile(root(`models/documents/document-0${n}.png`))),
);

/** A picture of several tiles, and a long answer. */
function request(i: number) {
  const data = pictures[i % pictures.length] ?? Buffer.alloc(0);
  const image = { content: { case: "image" as const, value: { data } } };
  const text = { content: { case: "text" as const, value: "Read the text." } };
  return { messages: [{ role: Role.USER, parts: [image, text] }], minTokens: 500, maxTokens: 500 };
}

test("requests that are cut off before, in and after their encode leave nothing behind", async () => {
  const cut = async (i: number) => {
    const events = client.generate(request(i));
    for (let seen = 0; seen <= i % 3; seen++) await events.next();
    await events.return(undefined);
  };
  await Promise.all(Array.from({ length: 36 }, (_, i) => cut(i)));
  await eventually("nothing is held", async () => (await heldCount(client)) === 0);
});

test("after them an answer is given as before", async () => {
  const { choices } = await client.generateOnce({ ...request(0), minTokens: 0, maxTokens: 8 });
  assert.ok((choices[0]?.text.length ?? 0) > 0);
});
