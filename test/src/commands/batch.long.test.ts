/** The golden requests through `tessera batch`, as a stranger would send them, with 1, 2, 4 and 8 workers. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { readGoldens, type Golden } from "../harness/goldens.js";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

const goldens = await readGoldens();
const folder = await mkdtemp(join(tmpdir(), "tessera-batch-"));
after(() => rm(folder, { recursive: true }));

/** `<image>` and a newline in a text stand for the next picture. */
function lineOf(golden: Golden, i: number): string {
  const files = [...golden.images];
  const content = (text: string) =>
    text.split(/(<image>\n)/).flatMap((piece): object[] => {
      if (piece === "") return [];
      if (piece !== "<image>\n") return [{ type: "text", text: piece }];
      const url = `file:${root(`models/documents/${files.shift() ?? ""}`)}`;
      return [{ type: "image_url", image_url: { url } }];
    });
  const messages = golden.turns.flatMap(([role, text]) =>
    text === null ? [] : [{ role, content: role === "user" ? content(text) : text }],
  );
  const settings = { max_tokens: 48, temperature: 0, logprobs: true, top_logprobs: 5 };
  const body = { model: "nvlm-d-tiny", messages, ...settings, return_token_ids: true };
  return JSON.stringify({ custom_id: `${i}`, method: "POST", url: "/v1/chat/completions", body });
}

interface Answer {
  custom_id: string;
  response: {
    body: {
      prompt_token_ids: number[];
      choices: { token_ids: number[]; logprobs: { content: { logprob: number }[] } }[];
    };
  };
}

async function run(workers: number, ...args: string[]) {
  const [from, to] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  await writeFile(from, goldens.map(lineOf).join("\n"));
  const model = ["--model", root("models/nvlm-d-tiny"), "--workers", String(workers)];
  const all = ["batch", ...model, "-i", from, "-o", to, ...args];
  const { code, stderr } = await tessera(all, { deadlineMs: 300_000 });
  assert.equal(code, 0, stderr);
  const lines = (await readFile(to, "utf8")).trim().split("\n");
  return lines.map((line) => {
    const { custom_id, response } = JSON.parse(line) as Answer;
    const { prompt_token_ids, choices } = response.body;
    const [choice] = choices;
    return { custom_id, prompt_token_ids, ids: choice?.token_ids, logprobs: choice?.logprobs };
  });
}

const one = await run(1);

test("batch, one worker: prompt ids and greedy ids are the oracle's, log-probabilities within 2e-3", () => {
  goldens.forEach((golden, i) => {
    const got = one[i];
    assert.equal(got?.custom_id, `${i}`);
    assert.deepEqual(got?.prompt_token_ids, golden.prompt_ids, golden.name);
    assert.deepEqual(got?.ids, golden.greedy_ids, golden.name);
    golden.logprobs.forEach((logprob, k) => {
      const value = got?.logprobs?.content[k]?.logprob ?? NaN;
      assert.ok(Math.abs(value - logprob) < 2e-3, `${golden.name} ${value} ${logprob}`);
    });
  });
});

for (const workers of [2, 4, 8])
  test(`batch, ${workers} workers: the same lines to the bit`, async () => {
    assert.deepEqual(await run(workers), one);
  });

test("batch, 2 workers, prompts in chunks of 40: the same lines to the bit", async () => {
  assert.deepEqual(await run(2, "--max-batched-tokens", "40"), one);
});
