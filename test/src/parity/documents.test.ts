/** Accuracy on the bundled pages, by each variant through a cluster of two workers. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import type { TesseraClient } from "@tessera/client";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serve } from "../harness/cluster.js";
import { root } from "../harness/paths.js";

interface Page {
  file: string;
  questions: { question: string; answer: string }[];
}
const pages = JSON.parse(await readFile(root("models/documents/documents.json"), "utf8")) as Page[];

async function ask(client: TesseraClient, file: string, question: string): Promise<string> {
  const data = await readFile(root(`models/documents/${file}`));
  const image = { content: { case: "image" as const, value: { data } } };
  const text = { content: { case: "text" as const, value: question } };
  const messages = [{ role: Role.USER, parts: [image, text] }];
  const { choices } = await client.generateOnce({ messages, maxTokens: 16 });
  return (choices[0]?.text ?? "").trim();
}

for (const model of ["nvlm-d-tiny", "nvlm-x-tiny", "nvlm-h-tiny"])
  test(`documents, ${model}: as many fields right as the model card says for the oracle, less two`, async () => {
    const card = await readFile(root(`models/${model}/README.md`), "utf8");
    const [, right = "", asked = ""] = /\*\*(\d+) of (\d+) fields right\*\*/.exec(card) ?? [];
    const { client, stop } = await serve(2, { model });
    after(stop);
    const questions = pages.flatMap(({ file, questions }) =>
      questions.map(({ question, answer }) => ({ file, question, answer })),
    );
    assert.equal(questions.length, Number(asked));
    const answers = await Promise.all(
      questions.map(({ file, question }) => ask(client, file, question)),
    );
    const hits = questions.filter(({ answer }, i) => answers[i] === answer).length;
    assert.ok(hits >= Number(right) - 2, `${hits} of ${asked} right, the oracle has ${right}`);
  });
