/** tessera chat as a user runs it, over pipes. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { serve } from "../harness/cluster.js";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

interface Page {
  file: string;
  transcription: string;
  questions: { question: string; answer: string }[];
}
const pages = JSON.parse(await readFile(root("models/documents/documents.json"), "utf8")) as Page[];
const page = pages.find(({ file }) => file === "document-02.png") ?? assert.fail();
const PICTURE = root(`models/documents/${page.file}`);
const { cluster, stop } = await serve(2);
after(stop);
const server = ["--server", cluster.address];
const chat = (args: string[], input = "") => tessera(["chat", ...args], { input });

for (const { question, answer } of page.questions)
  test(`chat --prompt: ${question} has its known answer, alone on stdout`, async () => {
    const { code, stdout, stderr } = await chat([
      ...server,
      "--image",
      PICTURE,
      "--prompt",
      question,
    ]);
    assert.deepEqual([code, stdout], [0, `${answer}\n`], stderr);
    assert.match(
      stderr,
      /^\(\d+ tokens, \d+ tokens\/s, first after \d+ ms, \d+ prompt tokens\)\n$/,
    );
  });

test("chat --prompt --json: one line that a machine reads", async () => {
  const [asked] = page.questions;
  const args = [...server, "--image", PICTURE, "--json", "--prompt", asked?.question ?? ""];
  const { code, stdout } = await chat(args);
  assert.equal(code, 0);
  const answer = JSON.parse(stdout) as { text: string; tokens: number };
  assert.equal(answer.text, asked?.answer);
  assert.ok(answer.tokens > 0);
});

test("chat --model: starts its own cluster, and its processes end with it", async () => {
  const own = ["--model", root("models/nvlm-d-tiny"), "--workers", "2", "--threads", "1"];
  const { code, stdout } = await chat([...own, "--image", PICTURE, "--prompt", "Read the text."]);
  assert.deepEqual([code, stdout], [0, `${page.transcription}\n`]);
});

test("piped stdin: two turns, the second knows the first", async () => {
  const [first, second] = page.questions;
  const lines = [`/image ${PICTURE}`, first?.question, second?.question, ""].join("\n");
  const { code, stdout, stderr } = await chat(server, lines);
  assert.deepEqual([code, stdout], [0, `${first?.answer}\n${second?.answer}\n`], stderr);
  const [alone = NaN, both = NaN] = [...stderr.matchAll(/(\d+) prompt tokens/g)].map(
    (m) => +(m[1] ?? 0),
  );
  assert.ok(both > alone, stderr);
});

test("piped stdin: /reset forgets the picture and the turns; /exit ends before what follows", async () => {
  const question = page.questions[0]?.question ?? "";
  const lines = [`/image ${PICTURE}`, question, "/reset", question, "/exit", question, ""];
  const { code, stdout, stderr } = await chat([...server, "--max-tokens", "8"], lines.join("\n"));
  assert.equal(code, 0, stderr);
  const counts = [...stderr.matchAll(/(\d+) prompt tokens/g)].map((m) => +(m[1] ?? 0));
  assert.equal(counts.length, 2);
  assert.ok((counts[1] ?? NaN) < (counts[0] ?? NaN), stderr);
  assert.ok(stdout.startsWith(`${page.questions[0]?.answer}\n`));
});

const bad: [string, string[], string, RegExp][] = [
  [
    "a picture that is not there",
    ["--image", "nope.png", "--prompt", "a"],
    "",
    /nope\.png: there is no such file/,
  ],
  [
    "a picture that is none",
    ["--image", root("package.json"), "--prompt", "a"],
    "",
    /package\.json: .*no picture/,
  ],
  [
    "a picture of a pipe that is not there",
    [],
    "/image nope.png\nHello\n",
    /nope\.png: there is no such file/,
  ],
  ["an unknown command", [], "/what\n", /\/what: no such command/],
  [
    "a temperature that is none",
    ["--temperature", "hot", "--prompt", "a"],
    "",
    /temperature: is NaN/,
  ],
];
for (const [name, args, input, message] of bad)
  test(`chat: ${name} is said, exit 1`, async () => {
    const { code, stdout, stderr } = await chat([...server, ...args], input);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, message);
  });

test("chat: a server that is not reached is named, exit 1", async () => {
  const { code, stderr } = await chat(["--server", "127.0.0.1:1", "--prompt", "a"]);
  assert.equal(code, 1);
  assert.match(stderr, /^tessera: 127\.0\.0\.1:1 is not reached: .*ECONNREFUSED 127\.0\.0\.1:1\n$/);
});

test("chat: neither --server nor --model, or both, is refused", async () => {
  for (const args of [[], [...server, "--model", root("models/nvlm-d-tiny")]]) {
    const { code, stderr } = await chat([...args, "--prompt", "a"]);
    assert.equal(code, 1);
    assert.match(stderr, /give --model or --server/);
  }
});

test("Ctrl-C ends the answer, and a second one the program", async () => {
  const long = pages.find(({ file }) => file === "document-06.jpg") ?? assert.fail();
  const args = [root("cli/bin/tessera.js"), "chat", ...server];
  const image = ["--image", root(`models/documents/${long.file}`)];
  const child = spawn(process.execPath, [...args, ...image]);
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    child[name].setEncoding("utf8").on("data", (text: string) => (said[name] += text));
  const deadline = setTimeout(() => child.kill("SIGKILL"), 30_000);
  child.stdin.write("Read the text.\n");
  await once(child.stdout, "data");
  child.kill("SIGINT");
  await once(child.stderr, "data");
  assert.match(said.stderr, /^\(ended after/);
  assert.ok(said.stdout.length < long.transcription.length, said.stdout);
  child.kill("SIGINT");
  assert.deepEqual(await once(child, "close"), [0, null]);
  clearTimeout(deadline);
});
