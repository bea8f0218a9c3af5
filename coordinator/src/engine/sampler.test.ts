/** The sampler on lanes against a plain reference over all logits, written from docs/exactness.md. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { create } from "@bufbuild/protobuf";
import {
  LaneResultSchema,
  type Candidate,
  type LaneResult,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { SamplingParameters } from "../request/types.js";
import { GREEDY } from "./prepared.fixture.js";
import { applyFilters, describeToken, drawBest, drawFromLanes, hasFilters } from "./sampler.js";

type Filters = Pick<SamplingParameters, "minP" | "topK" | "topP">;

/** One row: processed logits over the temperature and noise, by token id; masked ids are −∞. */
interface Row {
  scaled: number[];
  noise: number[];
}

const PLAIN: SamplingParameters = { ...GREEDY, temperature: 1, seed: 0n };
const settings = (filters: Partial<SamplingParameters>): SamplingParameters => ({
  ...PLAIN,
  ...filters,
});

/** Ids that min-p, then top-k, then top-p leave: best first, the lowest id first among equals. */
function leftOver({ scaled }: Row, { minP, topK, topP }: Filters): number[] {
  const open = scaled.map((_, id) => id).filter((id) => scaled[id] !== -Infinity);
  const value = (id: number) => scaled[id] ?? NaN;
  const order = open.sort((a, b) => value(b) - value(a) || a - b);
  const best = value(order[0] ?? -1);
  const weight = (id: number) => Math.exp(value(id) - best);
  const afterMinP = order.filter((id) => weight(id) >= minP);
  const afterTopK = topK === 0 ? afterMinP : afterMinP.slice(0, topK);
  if (topP >= 1) return afterTopK;
  const mass = afterTopK.reduce((sum, id) => sum + weight(id), 0);
  const kept: number[] = [];
  let reached = 0;
  for (const id of afterTopK) {
    kept.push(id);
    reached += weight(id);
    if (reached >= topP * mass) break;
  }
  return kept;
}

/** The id of the greatest f32 sum of value and noise; the lowest among equals. */
function drawn({ scaled, noise }: Row, ids: number[]): number | undefined {
  const value = (id: number) => Math.fround((scaled[id] ?? NaN) + (noise[id] ?? NaN));
  return [...ids].sort((a, b) => value(b) - value(a) || a - b)[0];
}

/** What the ranks answer: `laneCount` lanes of equal width, each with its best `asked`. */
function lanesOf(
  row: Row,
  { laneCount, asked }: { laneCount: number; asked: number },
): LaneResult[] {
  const width = Math.ceil(row.scaled.length / laneCount);
  return Array.from({ length: laneCount }, (_, lane) => {
    const ids = row.scaled.map((_, id) => id).slice(lane * width, (lane + 1) * width);
    const open = ids.filter((id) => row.scaled[id] !== -Infinity);
    const scaled = (id: number) => row.scaled[id] ?? NaN;
    const candidate = (id: number) => ({
      tokenId: id,
      raw: scaled(id),
      scaled: scaled(id),
      noise: row.noise[id] ?? NaN,
    });
    const sorted = open.sort((a, b) => scaled(b) - scaled(a) || a - b);
    const max = Math.max(-Infinity, ...open.map(scaled));
    const sum = open.reduce((total, id) => total + Math.exp(scaled(id) - max), 0);
    const best = drawn(row, open);
    return create(LaneResultSchema, {
      lane,
      ...(best === undefined ? {} : { best: candidate(best) }),
      candidates: sorted.slice(0, asked).map(candidate),
      scaled: { max, sum: Math.fround(sum) },
    });
  });
}

/** As the engine loop asks: again with eight times as many until the filters can be decided. */
function filterByLanes(row: Row, sampling: SamplingParameters, first: number, laneCount: number) {
  let rounds = 1;
  for (let asked = first; ; asked *= 8, rounds++) {
    assert.ok(rounds < 12, "the filters are never decided");
    const kept = applyFilters(lanesOf(row, { laneCount, asked }), asked, sampling);
    if (kept !== undefined) return { kept, rounds };
  }
}

/** Few distinct values, so that ties are common, and some masked ids. */
const tied = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: -4, max: 4 }).map((n) => n / 2) },
  { weight: 1, arbitrary: fc.constant(-Infinity) },
);
const spread = fc.double({ min: -20, max: 20, noNaN: true }).map(Math.fround);
const rowOf = (value: fc.Arbitrary<number>): fc.Arbitrary<Row> =>
  fc
    .array(fc.tuple(value, fc.integer({ min: -3, max: 3 })), { minLength: 1, maxLength: 300 })
    .map((pairs) => ({ scaled: pairs.map(([x]) => x), noise: pairs.map(([, g]) => g) }));
const filters: fc.Arbitrary<Filters> = fc.record({
  minP: fc.oneof(fc.constant(0), fc.double({ min: 1e-6, max: 1, noNaN: true })),
  topK: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 320 })),
  topP: fc.oneof(fc.constant(1), fc.double({ min: 1e-6, max: 0.999999, noNaN: true })),
});
const laneCounts = fc.constantFrom(1, 2, 4, 8);
const firsts = fc.constantFrom(1, 2, 7, 64, 256);

for (const [name, row] of [
  ["values with many ties", rowOf(tied)],
  ["spread values", rowOf(spread)],
] as const)
  test(`filters and draw on lanes are those over all logits: ${name}`, () => {
    fc.assert(
      fc.property(row, filters, firsts, laneCounts, (one, filter, first, laneCount) => {
        const { kept } = filterByLanes(one, settings(filter), first, laneCount);
        const want = leftOver(one, filter);
        assert.deepEqual(
          kept.map((candidate) => candidate.tokenId),
          want,
        );
        assert.equal(drawBest(kept)?.tokenId, drawn(one, want));
      }),
      { numRuns: 1500 },
    );
  });

test("without filters each lane's best is enough", () => {
  fc.assert(
    fc.property(rowOf(tied), laneCounts, (row, laneCount) => {
      const open = row.scaled.map((_, id) => id).filter((id) => row.scaled[id] !== -Infinity);
      const lanes = lanesOf(row, { laneCount, asked: 0 });
      assert.equal(drawFromLanes(lanes)?.tokenId, drawn(row, open));
    }),
  );
});

test("a nucleus wider than the first candidates is decided after more of them, not by guessing", () => {
  const flat: Row = { scaled: Array<number>(5000).fill(0), noise: Array<number>(5000).fill(0) };
  const sampling = settings({ topP: 0.9 });
  assert.equal(applyFilters(lanesOf(flat, { laneCount: 8, asked: 256 }), 256, sampling), undefined);
  const { kept, rounds } = filterByLanes(flat, sampling, 256, 8);
  assert.deepEqual([kept.length, rounds], [4500, 2]);
});

test("top-k within the first candidates needs no second message", () => {
  const row: Row = {
    scaled: Array.from({ length: 5000 }, (_, id) => -id / 100),
    noise: Array<number>(5000).fill(0),
  };
  const narrow = settings({ topK: 256, topP: 0.95, minP: 0.01 });
  assert.equal(filterByLanes(row, narrow, 256, 8).rounds, 1);
});

test("equal values: the lowest ids are kept and win, across lanes too", () => {
  const row: Row = { scaled: [1, 2, 2, 2, 2, 2, 2, 1], noise: Array<number>(8).fill(0) };
  const { kept } = filterByLanes(row, settings({ topK: 3 }), 1, 8);
  assert.deepEqual(
    kept.map(({ tokenId }) => tokenId),
    [1, 2, 3],
  );
  assert.equal(drawBest(kept)?.tokenId, 1);
});

test("a row whose ids are all masked leaves nothing to choose", () => {
  const row: Row = { scaled: Array<number>(16).fill(-Infinity), noise: Array<number>(16).fill(0) };
  for (const filter of [{ topK: 2 }, { topP: 0.5 }, { minP: 0.5 }, {}]) {
    const { kept } = filterByLanes(row, settings(filter), 4, 2);
    assert.deepEqual(kept, []);
    assert.equal(drawBest(kept), undefined);
  }
  assert.equal(drawFromLanes(lanesOf(row, { laneCount: 2, asked: 0 })), undefined);
});

test("hasFilters: greedy and temperature alone need none", () => {
  const cases: [Partial<SamplingParameters>, boolean][] = [
    [{}, false],
    [{ temperature: 0, topK: 5, topP: 0.1, minP: 0.5 }, false],
    [{ topK: 1 }, true],
    [{ topP: 0.99 }, true],
    [{ minP: 0.01 }, true],
  ];
  for (const [change, want] of cases) assert.equal(hasFilters(settings(change)), want);
});

test("log-probabilities are of the raw logits over all lanes; the best alternatives by value, then id", () => {
  const raw = [0.5, 3, 3, -1, 2, 3, 0, 1].map(Math.fround);
  const lanes = [0, 1].map((lane) => {
    const ids = [0, 1, 2, 3].map((i) => i + 4 * lane);
    const value = (id: number) => raw[id] ?? NaN;
    const max = Math.max(...ids.map(value));
    const sum = ids.reduce((total, id) => total + Math.exp(value(id) - max), 0);
    const top = ids.sort((a, b) => value(b) - value(a) || a - b).slice(0, 3);
    return create(LaneResultSchema, {
      lane,
      raw: { max, sum },
      top: top.map((tokenId) => ({ tokenId, raw: value(tokenId) })),
    });
  });
  const logZ = Math.log(raw.reduce((sum, value) => sum + Math.exp(value), 0));
  const chosen = { tokenId: 4, raw: 2, scaled: 9, noise: 1 } as Candidate;
  const { tokenId, logprob, top } = describeToken(lanes, chosen, 3);
  assert.equal(tokenId, 4);
  assert.ok(Math.abs((logprob ?? NaN) - (2 - logZ)) < 1e-6);
  assert.deepEqual(
    top.map((one) => one.tokenId),
    [1, 2, 5],
  );
  assert.ok(top.every((one) => Math.abs(one.logprob - (3 - logZ)) < 1e-6));
  assert.deepEqual(describeToken(lanes, chosen, undefined).logprob, undefined);
  assert.deepEqual(describeToken(lanes, chosen, 0).top, []);
});
