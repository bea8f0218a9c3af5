import assert from "node:assert/strict";
import { test } from "node:test";
import { ServeError } from "@tessera/proto";
import type { Grammar, Matcher } from "../request/constraint.js";
import type { GrammarEngine, GrammarLimits } from "./index.js";
import { engineOf, FIELD, smallModel, type TestModel } from "./models.fixture.js";
import { allowedIds, seeded } from "./walker.fixture.js";

const model: TestModel = await smallModel();
const [STOP = 0] = model.stopIds;

/** Each `s` may stand for nothing: the ways to read an answer grow with its length, and so does a step's time. */
const SLOW = `root ::= s "!"\ns ::= "" | [a-z]${" s".repeat(40)}`;

async function withEngine(
  limits: Partial<GrammarLimits>,
  run: (engine: GrammarEngine) => Promise<void>,
) {
  const engine = engineOf(model, limits);
  try {
    await run(engine);
  } finally {
    await engine.close();
  }
}

const choice = (engine: GrammarEngine, texts: string[], of: object = {}) =>
  engine.compile({ kind: "choice", texts }, { ...FIELD, ...of });
const grammarOf = (engine: GrammarEngine, ebnf: string) =>
  engine.compile({ kind: "grammar", ebnf }, FIELD);

async function feed(matcher: Matcher, text: string): Promise<void> {
  for (const id of model.tokenizer.encode(text, { special: false })) {
    await matcher.ready;
    if (matcher.failure !== undefined) return;
    matcher.accept(id);
  }
  await matcher.ready;
}

const has = (matcher: Matcher, id: number) =>
  allowedIds(matcher.mask ?? new Uint8Array()).includes(id);

test("a model whose stop ids cannot be chosen: it is served, constraints are refused by name", async () => {
  const beyond = engineOf({ ...model, stopIds: [1_000_000] }, {});
  const some = engineOf({ ...model, stopIds: [1_000_000, STOP] }, {});
  try {
    await assert.rejects(choice(beyond, ["a"]), /^.*response_format: the model has no stop id/);
    const matcher = (await choice(some, ["a"])).open();
    await feed(matcher, "a");
    assert.deepEqual(allowedIds(matcher.mask ?? new Uint8Array()), [STOP]);
  } finally {
    await Promise.all([beyond.close(), some.close()]);
  }
});

test("compile: a request that ends meanwhile has the reason of its end, be it its deadline", () =>
  withEngine({}, async (engine) => {
    for (const code of ["DEADLINE", "ABORTED"] as const) {
      const call = new AbortController();
      const compiling = choice(engine, [`for ${code}`], { signal: call.signal });
      call.abort(new ServeError(code, "the call has ended"));
      await assert.rejects(compiling, { code, message: "the call has ended" });
      assert.equal(engine.stats.used, 0);
    }
  }));

test("matcher: a stop id is allowed where the grammar may end, and ends it", () =>
  withEngine({}, async (engine) => {
    const grammar = await choice(engine, ["ab", "abc"]);
    const matcher = grammar.open();
    assert.equal(matcher.mask, undefined);
    await matcher.ready;
    assert.equal(has(matcher, STOP), false);
    await feed(matcher, "ab");
    assert.equal(has(matcher, STOP), true);
    assert.equal(matcher.ended, false);
    matcher.accept(STOP);
    assert.equal(matcher.mask, undefined);
    await matcher.ready;
    assert.equal(matcher.ended, true);
    assert.equal(matcher.mask, undefined);
    assert.equal(matcher.failure, undefined);
  }));

test("matcher: special tokens but stops, and ids beyond the vocabulary, are never allowed", async () => {
  const selectableIds = model.selectableIds + 37;
  const engine = engineOf({ ...model, selectableIds });
  const grammar = await grammarOf(engine, "root ::= [^\\n]* [\\n]");
  const matcher = grammar.open();
  await matcher.ready;
  const ids = allowedIds(matcher.mask ?? new Uint8Array());
  assert.equal(matcher.mask?.length, Math.ceil(selectableIds / 8));
  assert.ok(ids.length > model.selectableIds / 2);
  assert.deepEqual(
    ids.filter((id) => id >= model.tokenizer.size || model.tokenizer.isSpecial(id)),
    [],
  );
  await engine.close();
});

test("matcher: a token outside the mask is the caller's fault", () =>
  withEngine({}, async (engine) => {
    const matcher = (await choice(engine, ["ab"])).open();
    await matcher.ready;
    assert.throws(() => matcher.accept(STOP), /not allowed by the mask/);
  }));

test("matcher: looking ahead changes nothing; masks behind tokens that come are those of a plain walk", () =>
  withEngine({ lightMs: 60_000, slowMaskMs: 60_000 }, async (engine) => {
    const ebnf = 'root ::= "[" (word ",")* word "]"\nword ::= [a-f]+ | "\\"" [^"\\n]* "\\""';
    const grammar = await grammarOf(engine, ebnf);
    const random = seeded(5);
    const letters = model.tokenizer.encode('abcdef,]"', { special: false });
    const guesses = [...letters, ...letters, 7, 100, STOP];
    let [known, refused] = [0, 0];
    for (let round = 0; round < 12; round++) {
      const [plain, looking] = [grammar.open(), grammar.open()];
      await Promise.all([plain.ready, looking.ready]);
      for (let step = 0; step < 30; step++) {
        const ids = allowedIds(plain.mask ?? new Uint8Array()).filter((id) => id !== STOP);
        const token = ids[Math.floor(random() * ids.length)] ?? assert.fail("no id but a stop");
        known += looking.ahead[0]?.tokenId === token ? 1 : 0;
        plain.accept(token);
        looking.accept(token);
        // What may come, what may not, and a stop.
        const guess = () => guesses[Math.floor(random() * guesses.length)] ?? STOP;
        looking.lookAhead([guess(), guess(), guess()]);
        await Promise.all([plain.ready, looking.ready]);
        assert.deepEqual(looking.mask, plain.mask);
        assert.deepEqual(
          [looking.mayEnd, looking.ended, looking.failure],
          [plain.mayEnd, plain.ended, plain.failure],
        );
        refused += looking.ahead.length < 3 ? 1 : 0;
        assert.ok(looking.ahead.every(({ tokenId }) => tokenId !== STOP));
        if (allowedIds(plain.mask ?? new Uint8Array()).every((id) => id === STOP)) break;
      }
      plain.close();
      looking.close();
    }
    assert.ok(known > 0 && refused > 0, `${known} came, ${refused} were refused`);
  }));

test("matcher: several tokens looked ahead at are accepted in one turn, each under its mask, with one mask made", () =>
  withEngine({ lightMs: 60_000, slowMaskMs: 60_000 }, async (engine) => {
    const matcher = (await grammarOf(engine, 'root ::= "ab" [c-d]+ "!"')).open();
    await matcher.ready;
    const ids = ["a", "b", "c", "d", "!"].map(
      (text) => model.tokenizer.encode(text, { special: false })[0] ?? -1,
    );
    const [a = -1, b = -1, c = -1, d = -1, end = -1] = ids;
    matcher.accept(a);
    matcher.lookAhead([b, c, a, d]);
    await matcher.ready;
    assert.deepEqual(
      matcher.ahead.map(({ tokenId }) => tokenId),
      [b, c],
    );
    assert.ok(!has(matcher, d) && has(matcher, b));
    const { sharedMessages } = engine.stats;
    matcher.accept(b);
    assert.ok(has(matcher, c) && has(matcher, d) && !has(matcher, end));
    matcher.accept(c);
    assert.ok(has(matcher, end) && has(matcher, d));
    assert.throws(() => matcher.accept(a), /not allowed by the mask/);
    matcher.accept(d);
    assert.equal(matcher.mask, undefined);
    await matcher.ready;
    assert.ok(has(matcher, end) && has(matcher, c));
    assert.equal(engine.stats.sharedMessages, sharedMessages + 1);
    matcher.accept(end);
    await matcher.ready;
    assert.deepEqual(
      [allowedIds(matcher.mask ?? new Uint8Array()), matcher.mayEnd],
      [[STOP], true],
    );
  }));

test("matchers of one turn at the same place: they have one mask between them", () =>
  withEngine({}, async (engine) => {
    const grammar = await grammarOf(engine, 'root ::= [a-z]* "." "!"');
    const matchers = Array.from({ length: 4 }, () => grammar.open());
    await Promise.all(matchers.map(({ ready }) => ready));
    for (const [i, text] of ["a", "b", ".", "c"].entries()) {
      const [id = -1] = model.tokenizer.encode(text, { special: false });
      matchers[i]?.accept(id);
    }
    await Promise.all(matchers.map(({ ready }) => ready));
    const [a, b, end, c] = matchers.map(({ mask }) => mask ?? assert.fail("no mask"));
    assert.ok(a === b && b === c && a !== end);
    assert.notDeepEqual(a, end);
  }));

test("matchers of one turn: their tokens go as one message", () =>
  withEngine({ lightMs: 60_000, slowMaskMs: 60_000 }, async (engine) => {
    const grammar = await grammarOf(engine, 'root ::= [a-z]* "."');
    const matchers = Array.from({ length: 16 }, () => grammar.open());
    await Promise.all(matchers.map(({ ready }) => ready));
    assert.equal(engine.stats.sharedMessages, 1);
    const random = seeded(7);
    for (let step = 0; step < 5; step++) {
      for (const matcher of matchers) {
        const ids = allowedIds(matcher.mask ?? new Uint8Array()).filter(
          (id) => !Buffer.from(model.tokenizer.tokenBytes(id)).includes("."),
        );
        matcher.accept(ids[Math.floor(random() * ids.length)] ?? -1);
      }
      await Promise.all(matchers.map(({ ready }) => ready));
    }
    assert.equal(engine.stats.sharedMessages, 6);
    assert.ok(matchers.every(({ mask, failure }) => mask !== undefined && failure === undefined));
  }));

/** Both start; the slow one is driven until it fails or has taken 200 tokens. */
async function besideSlow(engine: GrammarEngine): Promise<[slow: Matcher, good: Matcher]> {
  const good = (await grammarOf(engine, 'root ::= "x"{3} "yz"')).open();
  await feed(good, "xx");
  const slow = (await grammarOf(engine, SLOW)).open();
  await feed(slow, "ab".repeat(100));
  return [slow, good];
}

async function finish(matcher: Matcher): Promise<void> {
  await feed(matcher, "xyz");
  assert.deepEqual(allowedIds(matcher.mask ?? new Uint8Array()), [STOP]);
}

test("a grammar too slow for the step limit: fails by name, its neighbours go on in a new thread", () =>
  withEngine({ stepMs: 500, threads: 1 }, async (engine) => {
    const [slow, good] = await besideSlow(engine);
    assert.equal(slow.failure?.code, "INVALID_ARGUMENT");
    assert.match(slow.failure?.message ?? "", /^response_format: a step took longer than 500 ms/);
    assert.equal(good.failure, undefined);
    await finish(good);
    await assert.rejects(grammarOf(engine, SLOW), /longer than 500 ms/);
  }));

test("a grammar that holds up its neighbours: gets a thread of its own, and fails there", () =>
  withEngine({ stepMs: 800, slowMaskMs: 2 }, async (engine) => {
    const before = engine.stats.alone;
    const [slow, good] = await besideSlow(engine);
    assert.equal(before, 0);
    assert.match(slow.failure?.message ?? "", /a step took longer than 800 ms/);
    const { sharedMessages } = engine.stats;
    assert.ok(sharedMessages < 100, `${sharedMessages} batches in the shared thread`);
    await finish(good);
  }));

test("a grammar that is slow to compile: keeps the thread that compiled it, others wait for nothing", () =>
  withEngine({ lightMs: 0, threads: 3 }, async (engine) => {
    const texts = ["a", "b", "c"];
    const [first, second] = [await choice(engine, ["a"]), await choice(engine, ["b"])];
    assert.equal(engine.stats.alone, 2);
    await assert.rejects(
      choice(engine, ["c"]),
      (error: Error & { code?: string }) => error.code === "OVERLOADED",
    );
    for (const [i, grammar] of [first, second].entries()) {
      const matcher = grammar.open();
      await feed(matcher, texts[i] ?? "");
      assert.deepEqual(allowedIds(matcher.mask ?? new Uint8Array()), [STOP]);
      matcher.close();
    }
    first.close();
    const third = await choice(engine, ["c"]);
    assert.equal(engine.stats.alone, 2);
    const matcher = third.open();
    await feed(matcher, "c");
    assert.deepEqual(allowedIds(matcher.mask ?? new Uint8Array()), [STOP]);
  }));

test("compiled grammars: kept per tenant, the least recently used goes, those in use never", () =>
  withEngine({ keptPerTenant: 2, kept: 3 }, async (engine) => {
    const held = await choice(engine, ["1"]);
    (await choice(engine, ["2"])).close();
    (await choice(engine, ["3"])).close();
    assert.deepEqual([engine.stats.kept, engine.stats.used], [2, 1]);
    const bob: Grammar[] = [];
    bob.push(await choice(engine, ["1"], { tenant: "bob" }));
    bob.push(await choice(engine, ["2"], { tenant: "bob" }));
    assert.equal(engine.stats.kept, 3);
    await assert.rejects(choice(engine, ["3"], { tenant: "bob" }), /2 constraints of this tenant/);
    await assert.rejects(choice(engine, ["4"], { tenant: "eve" }), /3 constraints of all tenants/);
    held.close();
    (await choice(engine, ["4"], { tenant: "eve" })).close();
    assert.deepEqual([engine.stats.kept, engine.stats.used], [3, 2]);
  }));

test("compiles that wait: bounded per tenant; a request that ends leaves the queue", () =>
  withEngine({ threads: 1, waitingPerTenant: 2 }, async (engine) => {
    const stop = new AbortController();
    const running = choice(engine, ["1"]);
    const gone = choice(engine, ["2"], { signal: stop.signal });
    const waiting = choice(engine, ["3"]);
    await assert.rejects(
      choice(engine, ["4"]),
      (error: Error & { code?: string }) => error.code === "OVERLOADED",
    );
    const reason = new ServeError("ABORTED", "the client left");
    stop.abort(reason);
    await assert.rejects(gone, reason);
    await Promise.all([running, waiting]);
    assert.equal(engine.stats.kept, 2);
  }));

test("the same constraint at once: compiled once", () =>
  withEngine({}, async (engine) => {
    const all = await Promise.all(Array.from({ length: 8 }, () => choice(engine, ["x", "y"])));
    assert.deepEqual([engine.stats.kept, engine.stats.used], [1, 1]);
    for (const grammar of all) grammar.close();
    assert.equal(engine.stats.used, 0);
  }));

test("engine: closed with matchers open, they fail and nothing new starts", async () => {
  const engine = engineOf(model);
  const grammar = await choice(engine, ["ab"]);
  const matcher = grammar.open();
  await engine.close();
  await matcher.ready;
  assert.equal(matcher.failure?.code, "DRAINING");
  await assert.rejects(choice(engine, ["ab"]), /stopping/);
});

test("a request that ends while its constraint compiles: the thread comes back when others have taken the place", () =>
  withEngine({ threads: 2, keptPerTenant: 1, lightMs: -1 }, async (engine) => {
    for (const text of ["a", "b", "c"]) {
      const leaving = new AbortController();
      const left = choice(engine, [`${text}1`], { signal: leaving.signal });
      // The first takes a thread that compiles; the second takes its place among those kept.
      const next = new Promise<Grammar>((resolve, reject) => {
        setImmediate(() => {
          leaving.abort(new ServeError("ABORTED", "the client left"));
          setImmediate(() => void choice(engine, [`${text}2`]).then(resolve, reject));
        });
      });
      await assert.rejects(left, { code: "ABORTED" });
      const grammar = await Promise.race([next, deadline(`${text}2`)]);
      grammar.close();
    }
    assert.equal(engine.stats.kept, 1);
  }));

function deadline(what: string): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`${what} is not compiled within 10 s`)), 10_000).unref();
  });
}
