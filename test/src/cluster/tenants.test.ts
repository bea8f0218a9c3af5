/** Tenants of one server: what each gets of it, and what each may. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { serve } from "../harness/cluster.js";
import { bodyOf, LoadClient } from "../harness/load-client.js";

const folder = mkdtempSync(join(tmpdir(), "tessera-tenants-"));
after(() => rmSync(folder, { recursive: true }));
const file = join(folder, "keys.yaml");
const entry = (tenant: string) =>
  `  - { sha256: "${createHash("sha256").update(`key-of-${tenant}`).digest("hex")}", tenant: ${tenant} }\n`;
writeFileSync(
  file,
  `tenants:
  light: { weight: 1 }
  heavy: { weight: 3 }
  crowd:
  guest:
  few: { limits: { requests: 2 } }
  slow: { limits: { tokens_per_second: 100 } }
keys:
${["light", "heavy", "crowd", "guest", "few", "slow"].map(entry).join("")}`,
);

const served = await serve(2, { security: { keys: file }, flags: { maxSequences: 4 } });
after(() => served.stop());
function clientOf(tenant: string): LoadClient {
  const client = new LoadClient(served.cluster.address, `key-of-${tenant}`);
  after(() => client.close());
  return client;
}

/** A prompt of so many tokens, and an answer; no two prompts are alike. */
let made = 0;
function bodyWith(promptTokens: number, answerTokens: number): Buffer {
  const tokenIds = Array.from({ length: promptTokens }, (_, i) => 40 + ((i * 7 + made) % 80));
  made++;
  return bodyOf({ tokenIds, minTokens: answerTokens, maxTokens: answerTokens });
}

test("two tenants that always have work are served tokens by their weights, 1 to 3", async () => {
  const all = 14_000;
  const tokens = { light: 0, heavy: 0 };
  const open = () => tokens.light + tokens.heavy < all;
  // Requests of one are twice as large as the other's: tokens count, not requests.
  const keepBusy = async (tenant: "light" | "heavy", size: number) => {
    const client = clientOf(tenant);
    const one = async () => {
      while (open()) {
        const { usedTokens, details } = await client.send(bodyWith(2 * size, size)).outcome;
        assert.ok(usedTokens !== undefined, details);
        if (open()) tokens[tenant] += usedTokens;
      }
    };
    // So many that some wait on the server while this process is held up.
    await Promise.all(Array.from({ length: 48 }, one));
  };
  await Promise.all([keepBusy("light", 24), keepBusy("heavy", 12)]);
  const ratio = tokens.heavy / tokens.light;
  assert.ok(ratio >= 3 * 0.8 && ratio <= 3 * 1.2, `${tokens.heavy} to ${tokens.light}: ${ratio}`);
});

/** Resolves when the answer has begun; it is as long as it may be. */
function running(client: LoadClient): Promise<ReturnType<LoadClient["send"]>> {
  return new Promise((resolve) => {
    const call: ReturnType<LoadClient["send"]> = client.send(bodyWith(8, 4000), {
      onEvent: ({ kind }) => kind.case === "delta" && resolve(call),
    });
  });
}

test("a tenant's only request does not wait behind two hundred of another", async () => {
  const [crowd, guest] = [clientOf("crowd"), clientOf("guest")];
  // All places are taken until everybody waits.
  const holders = await Promise.all(Array.from({ length: 4 }, () => running(crowd)));
  let begun = 0;
  const firstOf = (count: () => void) => {
    let first = true;
    return () => {
      if (!first) return;
      first = false;
      count();
    };
  };
  // The second event: the first is sent when a request is taken.
  const secondOf = (count: () => void) => {
    const second = firstOf(count);
    const skip = { left: 1 };
    return () => (skip.left-- > 0 ? undefined : second());
  };
  let taken = 0;
  let allTaken: () => void = () => undefined;
  const waiting = new Promise<void>((resolve) => (allTaken = resolve));
  const others = Array.from({ length: 200 }, () => {
    const started = firstOf(() => ++taken === 200 && allTaken());
    const token = secondOf(() => begun++);
    const onEvent = () => {
      started();
      token();
    };
    return crowd.send(bodyWith(64, 16), { onEvent }).outcome;
  });
  await waiting;
  assert.equal(begun, 0);
  let between = Infinity;
  const token = secondOf(() => (between = begun));
  const own = await new Promise<ReturnType<LoadClient["send"]>>((resolve) => {
    const call: ReturnType<LoadClient["send"]> = guest.send(bodyWith(64, 16), {
      onEvent() {
        resolve(call);
        token();
      },
    });
  });
  for (const holder of holders) holder.cancel();
  assert.ok((await own.outcome).usedTokens !== undefined);
  // Events of other connections that are read late count as well: far from 200 is all there is to say.
  assert.ok(between < 100, `${between} of the others came first`);
  for (const { usedTokens } of await Promise.all(others)) assert.ok(usedTokens !== undefined);
});

test("a tenant's limits are its own: its third request is refused, others are taken", async () => {
  const few = clientOf("few");
  const long = bodyWith(8, 3000);
  // Calls go over connections of their own: those two must have been taken first.
  const taken = (): Promise<ReturnType<typeof few.send>> =>
    new Promise((resolve) => {
      const call: ReturnType<typeof few.send> = few.send(long, { onEvent: () => resolve(call) });
    });
  const running = await Promise.all([taken(), taken()]);
  const refused = await few.send(long).outcome;
  assert.deepEqual([refused.error?.code, refused.error?.quota], ["OVERLOADED", "tenant requests"]);
  assert.ok((refused.error?.retryDelayMs ?? 0) > 0);
  await clientOf("guest").ask(bodyWith(8, 2));
  for (const call of running) call.cancel();
  await Promise.all(running.map(({ outcome }) => outcome));
});

test("a tenant that has used its tokens is told when there are some again, and then is taken", async () => {
  const slow = clientOf("slow");
  // Its prompt counts from the moment it is taken: 400 of the 200 that it may use at once.
  const first = await new Promise((resolve) =>
    slow.send(bodyWith(400, 1), { onEvent: ({ kind }) => resolve(kind.case) }),
  );
  assert.equal(first, "started");
  const { error } = await slow.send(bodyWith(8, 1)).outcome;
  assert.deepEqual([error?.code, error?.quota], ["OVERLOADED", "tenant tokens"]);
  const delayMs = error?.retryDelayMs ?? NaN;
  assert.ok(delayMs > 0 && delayMs <= 2010, `${delayMs}`);
  // Timers of Node may be up to a millisecond early.
  await new Promise((resolve) => setTimeout(resolve, delayMs + 1));
  await slow.ask(bodyWith(8, 1));
});
