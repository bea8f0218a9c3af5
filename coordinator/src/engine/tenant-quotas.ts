/** What each tenant has under way, and what it may. Pure. */
import assert from "node:assert/strict";
import type { TenantPolicy } from "../access/caller.js";

/** Tokens that a tenant may use at once are those of so many seconds. */
const BURST_SECONDS = 2;

interface Usage {
  requests: number;
  images: number;
  /** Tokens left to use; below 0 after more were used than one could know. Undefined without a limit. */
  level: number | undefined;
  atMs: number;
}

export interface QuotaRefusal {
  quota: string;
  message: string;
  /** When it is known. */
  retryDelayMs: number | undefined;
}

function refilled({ level, atMs }: Usage, rate: number, nowMs: number): number {
  const full = rate * BURST_SECONDS;
  return level === undefined ? full : Math.min(full, level + (rate * (nowMs - atMs)) / 1e3);
}

export class TenantQuotas {
  private readonly usage = new Map<string, Usage>();

  private of(tenant: string, { limits }: TenantPolicy, nowMs: number): Usage {
    const rate = limits.tokensPerSecond;
    const known = this.usage.get(tenant);
    const usage = known ?? { requests: 0, images: 0, level: undefined, atMs: nowMs };
    usage.level = rate === undefined ? undefined : refilled(usage, rate, nowMs);
    usage.atMs = nowMs;
    if (known === undefined) this.usage.set(tenant, usage);
    return usage;
  }

  /** Why a request of so many images cannot be taken now. */
  refusal(
    tenant: string,
    policy: TenantPolicy,
    asked: { images: number; nowMs: number },
  ): QuotaRefusal | undefined {
    const { limits } = policy;
    const usage = this.of(tenant, policy, asked.nowMs);
    if (limits.requests !== undefined && usage.requests >= limits.requests)
      return {
        quota: "tenant requests",
        message: `${usage.requests} requests of ${tenant} run or wait, its limit is ${limits.requests}`,
        retryDelayMs: undefined,
      };
    if (limits.images !== undefined && usage.images + asked.images > limits.images)
      return {
        quota: "tenant images",
        message: `${asked.images} images beside ${usage.images} of ${tenant}, its limit is ${limits.images}`,
        retryDelayMs: undefined,
      };
    const rate = limits.tokensPerSecond;
    if (rate !== undefined && usage.level !== undefined && usage.level <= 0)
      return {
        quota: "tenant tokens",
        message: `${tenant} has used ${rate} tokens a second, its limit`,
        retryDelayMs: Math.ceil(((1 - usage.level) / rate) * 1e3),
      };
    return undefined;
  }

  enter(tenant: string, policy: TenantPolicy, of: { images: number; nowMs: number }): void {
    const usage = this.of(tenant, policy, of.nowMs);
    usage.requests++;
    usage.images += of.images;
  }
  leave(tenant: string, policy: TenantPolicy, of: { images: number; nowMs: number }): void {
    const usage = this.of(tenant, policy, of.nowMs);
    usage.requests--;
    usage.images -= of.images;
    const full = (policy.limits.tokensPerSecond ?? 0) * BURST_SECONDS;
    if (usage.requests === 0 && (usage.level ?? 0) >= full) this.usage.delete(tenant);
  }
  /** Tokens of a prompt that was taken, or that were made; below 0: they will not be used after all. */
  use(tenant: string, policy: TenantPolicy, of: { tokens: number; nowMs: number }): void {
    const usage = this.of(tenant, policy, of.nowMs);
    if (usage.level !== undefined) usage.level -= of.tokens;
  }

  /** @throws AssertionError when what is noted of a tenant is not what its requests take up. */
  audit(taken: readonly { tenant: string; images: number }[]): void {
    for (const [tenant, { requests, images }] of this.usage) {
      const own = taken.filter((one) => one.tenant === tenant);
      const held = own.reduce((sum, one) => sum + one.images, 0);
      assert.deepEqual([requests, images], [own.length, held], `requests, images of ${tenant}`);
    }
  }
}
