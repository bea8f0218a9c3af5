import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { ServeError } from "@tessera/proto";
import { libraryOf } from "./library.fixture.js";
import { SHORT_TEXT, TextQueue } from "./text-queue.js";
import { hostileTexts, letters, randomText } from "./texts.fixture.js";
import { loadTokenizer } from "./tokenizer.js";

const dir = fileURLToPath(new URL("../../../test/fixtures/qwen2-tokenizer", import.meta.url));
const { bpe } = await loadTokenizer(dir);
const of = (tenant: string, signal = new AbortController().signal) => ({
  tenant,
  field: "messages",
  signal,
});
const LONG = letters(SHORT_TEXT + 1);
const HUGE = letters(2 ** 20);

test("texts: random and hostile ones have the same ids by the thread, at once, and by the library", async () => {
  const library = await libraryOf(dir);
  const queue = new TextQueue(bpe);
  const random = fc.sample(randomText, 300).join("");
  for (const [name, text] of [...hostileTexts(SHORT_TEXT + 20), ["random", random] as const]) {
    const texts = [{ text }, { text: "", mark: 0 }, { text: LONG, mark: 777 }];
    const encoded = await queue.encode(texts, of("a"));
    assert.deepEqual(
      encoded,
      texts.map((plain) => bpe.encodeMarked(plain)),
      name,
    );
    assert.deepEqual([...(encoded[0]?.ids ?? [])], library(text), name);
  }
  await queue.close();
});

for (const [name, text] of [
  ["spaces", " ".repeat(2 ** 20)],
  ["letters", HUGE],
] as const)
  test(`texts: the event loop turns while a megabyte of ${name} is tokenised`, async () => {
    const queue = new TextQueue(bpe);
    let done = false;
    const long = queue.encode([{ text }], of("a")).finally(() => (done = true));
    let turns = 0;
    for (; !done; turns++) await setImmediate();
    await long;
    assert.ok(turns > 100, `${turns} turns`);
    await queue.close();
  });

test("texts: many short ones are a long one", async () => {
  const queue = new TextQueue(bpe);
  const order: string[] = [];
  const part = { text: LONG.slice(0, SHORT_TEXT / 2) };
  await Promise.all([
    queue.encode([part, part, { text: "." }], of("a")).then(() => order.push("long")),
    setImmediate().then(() => order.push("turn")),
  ]);
  assert.deepEqual(order, ["turn", "long"]);
  await queue.close();
});

test("texts: tenants take turns", async () => {
  const queue = new TextQueue(bpe);
  const order: string[] = [];
  const ask = (tenant: string, name: string) =>
    queue.encode([{ text: LONG }], of(tenant)).then(() => order.push(name));
  const all = [ask("a", "a1"), ask("a", "a2"), ask("a", "a3"), ask("b", "b1"), ask("c", "c1")];
  await Promise.all(all);
  assert.deepEqual(order, ["a1", "a2", "b1", "c1", "a3"]);
  await queue.close();
});

test("texts: one that passes its deadline is refused, and the next has a new thread", async () => {
  const queue = new TextQueue(bpe, (characters) => (characters < HUGE.length ? 60_000 : 1));
  const slow = queue.encode([{ text: HUGE }], of("a"));
  const next = queue.encode([{ text: LONG }], of("a"));
  await assert.rejects(slow, {
    code: "INVALID_ARGUMENT",
    message: `messages: have ${HUGE.length} characters that were not tokenised within 1 ms`,
  });
  assert.deepEqual(await next, [bpe.encodeMarked({ text: LONG })]);
  await queue.close();
});

test("texts: a thread that breaks fails its text alone", async () => {
  const queue = new TextQueue(bpe);
  const broken = { length: LONG.length } as unknown as string;
  const first = queue.encode([{ text: broken }], of("a"));
  const next = queue.encode([{ text: LONG }], of("a"));
  await assert.rejects(first, { code: "INTERNAL", message: /^the tokenizer's thread has ended: / });
  assert.deepEqual(await next, [bpe.encodeMarked({ text: LONG })]);
  await queue.close();
});

test("texts: who leaves frees the place, waiting or running", async () => {
  const queue = new TextQueue(bpe);
  const [runs, waits] = [new AbortController(), new AbortController()];
  const reason = new ServeError("ABORTED", "the client left");
  const running = queue.encode([{ text: HUGE }], of("a", runs.signal));
  const waiting = queue.encode([{ text: HUGE }], of("a", waits.signal));
  const last = queue.encode([{ text: LONG }], of("a"));
  waits.abort(reason);
  await assert.rejects(waiting, reason);
  runs.abort(reason);
  await assert.rejects(running, reason);
  assert.deepEqual(await last, [bpe.encodeMarked({ text: LONG })]);
  await assert.rejects(queue.encode([{ text: LONG }], of("a", runs.signal)), reason);
  await queue.close();
});

test("texts: a tenant's own wait is bounded, another's text is taken; closing refuses all", async () => {
  const queue = new TextQueue(bpe);
  const asks = Array.from({ length: 129 }, () => queue.encode([{ text: HUGE }], of("a")));
  const settled = Promise.allSettled(asks);
  await assert.rejects(queue.encode([{ text: LONG }], of("a")), {
    code: "OVERLOADED",
    quota: "long texts",
    message: /^128 long texts of this tenant wait to be tokenised, limit 128; /,
  });
  const other = queue.encode([{ text: LONG }], of("b"));
  const refused = assert.rejects(other, { code: "DRAINING" });
  await queue.close();
  await refused;
  const results = await settled;
  assert.ok(results.every(({ status }) => status === "rejected"));
  await assert.rejects(queue.encode([{ text: LONG }], of("a")), { code: "DRAINING" });
  assert.deepEqual(await queue.encode([{ text: "x" }], of("a")), [bpe.encodeMarked({ text: "x" })]);
});
