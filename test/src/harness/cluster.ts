/** A real cluster of the bundled model as child processes, and the golden requests as a client sends them. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { TesseraClient, type GenerateInput } from "@tessera/client";
import {
  startCluster,
  type Cluster,
  type PlacementFlags,
  type ServerSecurityFlags,
  type Transport,
} from "@tessera/cli";
import type { GenerateOnceResponse } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Golden } from "./goldens.js";
import { root } from "./paths.js";

export const FLAGS: PlacementFlags = {
  kv: "f32",
  wire: "f32",
  chatTemplate: "nvlm",
  stepDeadlineMs: 30_000,
  logLevel: "fatal",
};

type PartInit = {
  content: { case: "image"; value: { data: Uint8Array } } | { case: "text"; value: string };
};

const ROLES: Record<string, Role> = {
  system: Role.SYSTEM,
  user: Role.USER,
  assistant: Role.ASSISTANT,
};

/** `<image>` and a newline in a text stand for the next picture. */
export async function requestOf(golden: Golden): Promise<GenerateInput> {
  const pictures = await Promise.all(
    golden.images.map((name) => readFile(root(`models/documents/${name}`))),
  );
  let next = 0;
  const partsOf = (text: string) =>
    text.split(/(<image>\n)/).flatMap((piece): PartInit[] => {
      const data = pictures[next];
      if (piece === "<image>\n" && data !== undefined) {
        next++;
        return [{ content: { case: "image" as const, value: { data } } }];
      }
      return piece === "" ? [] : [{ content: { case: "text" as const, value: piece } }];
    });
  return {
    messages: golden.turns.flatMap(([role, text]) =>
      text === null ? [] : [{ role: ROLES[role] ?? Role.USER, parts: partsOf(text) }],
    ),
    maxTokens: 48,
    topLogprobs: 5,
    returnTokenIds: true,
  };
}

export interface Served {
  cluster: Cluster;
  client: TesseraClient;
  stop: () => Promise<void>;
}

export async function serve(
  workers: number,
  options: {
    /** Default nvlm-d-tiny; or a path. */
    model?: string;
    flags?: Partial<PlacementFlags>;
    threads?: number;
    transport?: Transport;
    environment?: (rank: number) => Record<string, string>;
    healthPort?: number;
    /** host:port */
    http?: string;
    reflection?: boolean;
    security?: ServerSecurityFlags;
  } = {},
): Promise<Served> {
  const { flags, model = "nvlm-d-tiny", ...rest } = options;
  const cluster = await startCluster({
    model: resolve(root("models"), model),
    workers,
    threads: 1,
    port: 0,
    flags: { ...FLAGS, ...flags },
    ...rest,
  });
  const client = new TesseraClient({ addresses: [cluster.address], deadlineMs: 120_000 });
  return {
    cluster,
    client,
    async stop() {
      client.close();
      await cluster.stop();
    },
  };
}

/** Prompt ids and greedy ids are the oracle's, log-probabilities within 2e-3. */
export function assertLikeOracle(answer: GenerateOnceResponse | undefined, golden: Golden): void {
  assert.deepEqual(answer?.started?.promptTokenIds, golden.prompt_ids, golden.name);
  const [choice] = answer?.choices ?? [];
  assert.deepEqual(choice?.tokenIds, golden.greedy_ids, golden.name);
  golden.logprobs.forEach((logprob, k) => {
    const got = choice?.logprobs[k]?.logprob ?? NaN;
    assert.ok(Math.abs(got - logprob) < 2e-3, `${golden.name} ${got} ${logprob}`);
  });
}

/** What must be equal to the bit wherever a request runs. */
export function essence(response: GenerateOnceResponse) {
  return response.choices.map(({ text, tokenIds, logprobs, finished }) => ({
    text,
    tokenIds,
    reason: finished?.reason,
    logprobs: logprobs.map(({ tokenId, logprob, top }) => [
      tokenId,
      logprob,
      ...top.map((t) => [t.tokenId, t.logprob]),
    ]),
  }));
}
