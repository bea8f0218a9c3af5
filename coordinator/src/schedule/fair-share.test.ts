import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FairShare, QUANTUM, type Claim } from "./fair-share.js";

const claim = (tenant: string, of: Partial<Claim> = {}): Claim => ({
  tenant,
  weight: 1,
  priority: 0,
  cost: 100,
  ...of,
});

test("fair share: one tenant's requests keep their order, the lower priority first", () => {
  const claims = [
    claim("a", { cost: 1 }),
    claim("a", { cost: 9000 }),
    claim("a", { priority: -1 }),
  ];
  assert.deepEqual(new FairShare().order(claims), [claims[2], claims[0], claims[1]]);
});

test("fair share: a tenant with one request does not wait behind a hundred of another", () => {
  const share = new FairShare();
  const flood = Array.from({ length: 100 }, () => claim("flood"));
  share.order(flood);
  const late = claim("late");
  const at = share.order([...flood, late]).indexOf(late);
  assert.ok(at <= 2 * (QUANTUM / 100), `served as number ${at}`);
});

const weights = fc.record({
  a: fc.integer({ min: 1, max: 5 }),
  b: fc.integer({ min: 1, max: 5 }),
  costs: fc.array(fc.integer({ min: 100, max: 2000 }), { minLength: 300, maxLength: 300 }),
});

test("fair share: tenants that always wait are served in the ratio of their weights", () => {
  fc.assert(
    fc.property(weights, ({ a, b, costs }) => {
      const share = new FairShare();
      const claims = costs.map((cost, i) =>
        i % 2 === 0 ? claim("a", { weight: a, cost }) : claim("b", { weight: b, cost }),
      );
      const served = { a: 0, b: 0 };
      const left = { a: 150, b: 150 };
      for (const { tenant, cost } of share.order(claims)) {
        const name = tenant as "a" | "b";
        served[name] += cost;
        if (--left[name] === 0) break;
        const apart = Math.abs(served.a / a - served.b / b);
        assert.ok(apart <= 2 * (QUANTUM + 2000), `${served.a}/${a} against ${served.b}/${b}`);
      }
    }),
    { numRuns: 100 },
  );
});

test("fair share: serving the first again and again is the order that was foretold, and nobody starves", () => {
  const any = fc.array(
    fc.record({
      tenant: fc.constantFrom("a", "b", "c"),
      weight: fc.constant(1),
      priority: fc.integer({ min: 0, max: 1 }),
      cost: fc.integer({ min: 1, max: 3000 }),
    }),
    { minLength: 1, maxLength: 40 },
  );
  fc.assert(
    fc.property(any, (claims) => {
      const share = new FairShare();
      const foretold = share.order(claims);
      assert.equal(new Set(foretold).size, claims.length);
      let waiting = [...claims];
      const served: Claim[] = [];
      while (waiting.length > 0) {
        const order = share.order(waiting);
        assert.deepEqual(order, foretold.slice(served.length));
        const [first] = order;
        assert.ok(first);
        share.served(first, waiting);
        served.push(first);
        waiting = waiting.filter((other) => other !== first);
      }
      assert.deepEqual(served, foretold);
    }),
    { numRuns: 300 },
  );
});

test("fair share: tokens made count; who comes back begins anew", () => {
  const share = new FairShare();
  const [a, b] = [claim("a", { cost: 10 }), claim("b", { cost: 10 })];
  share.order([a, b]);
  share.charge("a", 100 * QUANTUM);
  assert.deepEqual(share.order([a, b]), [b, a]);
  share.keep(new Set(["b"]));
  const order = share.order([b, a, a, a]);
  assert.ok(order.indexOf(a) <= 1);
});

test("fair share: the order of a long queue of many tenants looks at each claim a few times", () => {
  let looks = 0;
  const claims = Array.from({ length: 1024 }, (_, i): Claim => {
    const cost = 100 + (i % 900);
    return {
      tenant: `t${i % 512}`,
      weight: 1,
      priority: i % 8,
      get cost() {
        looks++;
        return cost;
      },
    };
  });
  const share = new FairShare();
  const [first] = share.order(claims);
  assert.ok(first && looks <= 8 * claims.length, `${looks} looks`);
  looks = 0;
  share.served(first, claims);
  assert.ok(looks <= 8 * claims.length, `${looks} looks`);
});
