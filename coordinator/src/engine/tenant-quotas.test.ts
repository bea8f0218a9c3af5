import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { TenantQuotas } from "./tenant-quotas.js";

const RATE = 100;
const BURST = 2 * RATE;
const limited = { weight: 1, limits: { tokensPerSecond: RATE } };
const unlimited = { weight: 1, limits: {} };
const TENANT = "acme";

const request = fc.record({
  /** Since the one before. */
  gapMs: fc.oneof(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 5000 })),
  promptTokens: fc.integer({ min: 0, max: 300 }),
  answerTokens: fc.integer({ min: 0, max: 300 }),
});

test("tenant quotas: in no window more than its rate, the burst and one request", () => {
  fc.assert(
    fc.property(fc.array(request, { minLength: 100, maxLength: 100 }), (asked) => {
      const quotas = new TenantQuotas();
      const taken: { atMs: number; tokens: number }[] = [];
      let nowMs = 0;
      let waited = 0;
      for (const { gapMs, promptTokens, answerTokens } of asked) {
        nowMs += gapMs;
        const refusal = quotas.refusal(TENANT, limited, { images: 0, nowMs });
        if (refusal !== undefined) {
          assert.equal(refusal.quota, "tenant tokens");
          nowMs += refusal.retryDelayMs ?? NaN;
          waited++;
          assert.equal(quotas.refusal(TENANT, limited, { images: 0, nowMs }), undefined);
        }
        quotas.enter(TENANT, limited, { images: 0, nowMs });
        quotas.use(TENANT, limited, { tokens: promptTokens, nowMs });
        quotas.use(TENANT, limited, { tokens: answerTokens, nowMs });
        taken.push({ atMs: nowMs, tokens: promptTokens + answerTokens });
        quotas.leave(TENANT, limited, { images: 0, nowMs });
      }
      assert.ok(waited > 5, `refused ${waited} times`);
      for (const [i, first] of taken.entries()) {
        let sum = 0;
        for (const { atMs, tokens } of taken.slice(i)) {
          const most = BURST + (RATE * (atMs - first.atMs)) / 1e3;
          assert.ok(sum <= most + 1e-6, `${sum} tokens of ${most}`);
          sum += tokens;
        }
      }
    }),
    { numRuns: 200, seed: 7 },
  );
});

test("tenant quotas: what was taken and not used counts no more, and nobody saves up more than the burst", () => {
  const quotas = new TenantQuotas();
  const use = (tokens: number, nowMs: number) => quotas.use(TENANT, limited, { tokens, nowMs });
  const free = (nowMs: number) =>
    quotas.refusal(TENANT, limited, { images: 0, nowMs }) === undefined;
  use(5000, 0);
  assert.ok(!free(0));
  use(-5000, 0);
  assert.ok(free(0));
  use(-5000, 0);
  use(BURST, 1e6);
  assert.ok(!free(1e6));
  assert.ok(free(1e6 + 10));
});

test("tenant quotas: who had no rate is not held to what it used then", () => {
  const quotas = new TenantQuotas();
  quotas.enter(TENANT, unlimited, { images: 0, nowMs: 0 });
  quotas.use(TENANT, unlimited, { tokens: 1e9, nowMs: 0 });
  assert.equal(quotas.refusal(TENANT, limited, { images: 0, nowMs: 1 }), undefined);
  quotas.use(TENANT, limited, { tokens: BURST, nowMs: 1 });
  const refusal = quotas.refusal(TENANT, limited, { images: 0, nowMs: 1 });
  assert.deepEqual(refusal, {
    quota: "tenant tokens",
    message: "acme has used 100 tokens a second, its limit",
    retryDelayMs: 10,
  });
  assert.equal(quotas.refusal(TENANT, unlimited, { images: 0, nowMs: 1 }), undefined);
});

test("tenant quotas: requests and images are a tenant's own, and come back", () => {
  const quotas = new TenantQuotas();
  const policy = { weight: 1, limits: { requests: 2, images: 3 } };
  const refused = (tenant: string, images: number) =>
    quotas.refusal(tenant, policy, { images, nowMs: 0 })?.quota;
  quotas.enter("a", policy, { images: 2, nowMs: 0 });
  assert.deepEqual(
    [refused("a", 1), refused("a", 2), refused("b", 3)],
    [undefined, "tenant images", undefined],
  );
  quotas.enter("a", policy, { images: 0, nowMs: 0 });
  assert.deepEqual([refused("a", 0), refused("b", 4)], ["tenant requests", "tenant images"]);
  assert.throws(() => quotas.audit([{ tenant: "a", images: 2 }]), /requests, images of a/);
  quotas.leave("a", policy, { images: 2, nowMs: 0 });
  quotas.audit([{ tenant: "a", images: 0 }]);
  assert.equal(refused("a", 3), undefined);
});
