/** OpenAI's Python client against a server, where Python has it. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { serveHttp } from "../harness/http-front.js";
import { root } from "../harness/paths.js";

const DEADLINE_MS = 60_000;
const run = promisify(execFile);
const python = (...args: string[]) => run("python3", args, { timeout: DEADLINE_MS });

/** Undefined when it is there. */
const missing = await python("-c", "import openai").then(
  () => undefined,
  (error: unknown) =>
    `python3 cannot import openai (${String(error).trim().split("\n").at(-1)}); install Python 3.9 or later and ` +
    '"python3 -m pip install openai"',
);

interface Said {
  model: string;
  whole: { text: string; tokens: number };
  logprobs: number;
  streamed: { text: string; tokens: number };
  resumed: string;
  read: string;
  choices: number[];
  refusals: { type: string; param: string; code: string }[];
}

test(
  "python: OpenAI's client chats, streams, shows a picture, and raises its typed errors",
  { skip: missing ?? false },
  async () => {
    const { url } = await serveHttp();
    const script = root("test/src/http/python-openai.py");
    const { stdout } = await python(script, url, root("models/documents/document-02.png"));
    const said = JSON.parse(stdout) as Said;
    assert.equal(said.model, "nvlm-d-tiny");
    assert.notEqual(said.whole.text, "");
    assert.deepEqual(said.streamed, said.whole);
    assert.equal(said.resumed, said.whole.text);
    assert.equal(said.logprobs, said.whole.tokens);
    assert.equal(said.read, "74.48");
    assert.deepEqual(said.choices, [0, 1, 2, 3]);
    assert.deepEqual(said.refusals, [
      { type: "BadRequestError", param: "temperature", code: "invalid_value" },
      { type: "NotFoundError", param: "model", code: "model_not_found" },
    ]);
  },
);
