/** The membership that the options ask for. NATS is loaded only when it is asked for. */
import { HEARTBEAT_INTERVAL_MS } from "@tessera/proto/membership";
import { StaticMembership, type Membership } from "./membership.js";
import type { NatsMembershipOptions } from "./nats-membership.js";

export interface MembershipOptions {
  workers?: string[] | undefined;
  nats?: string | undefined;
  group?: string | undefined;
  tensorParallel?: number | undefined;
  visionWorkers?: number | undefined;
  heartbeatMs?: number | undefined;
}

/** @throws ServeError CONFIGURATION when NATS is not reached or will not do. */
export async function openMembership(
  options: MembershipOptions,
  facts: Pick<NatsMembershipOptions, "modelHash" | "build" | "log" | "onCancel">,
): Promise<Membership> {
  const { nats: url, workers = [], tensorParallel = 0, visionWorkers = 0 } = options;
  if (url === undefined) return new StaticMembership(workers);
  const { NatsMembership } = await import("./nats-membership.js");
  return NatsMembership.open({
    ...facts,
    url,
    group: options.group ?? "default",
    size: tensorParallel + visionWorkers,
    heartbeatIntervalMs: options.heartbeatMs ?? HEARTBEAT_INTERVAL_MS.default,
  });
}
