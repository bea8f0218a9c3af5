import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import type { TesseraClient } from "@tessera/client";
import { serviceDefinition } from "@tessera/proto";
import {
  GetStatsRequestSchema,
  Shard,
  type GetStatsResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";

const DEADLINE_MS = 5000;
const { getStats } = serviceDefinition(Shard);

function statsOf(address: string): Promise<GetStatsResponse> {
  const client = new Client(address, credentials.createInsecure());
  return new Promise<GetStatsResponse>((resolve, reject) => {
    client.makeUnaryRequest(
      getStats.path,
      getStats.requestSerialize,
      getStats.responseDeserialize,
      create(GetStatsRequestSchema),
      { deadline: Date.now() + DEADLINE_MS },
      (error, response) => (response === undefined ? reject(error as Error) : resolve(response)),
    );
  }).finally(() => client.close());
}

/** What every rank says that it holds. */
export async function rankStats(client: TesseraClient): Promise<GetStatsResponse[]> {
  const { ranks } = await client.getCluster();
  return Promise.all(ranks.map(({ address }) => statsOf(address)));
}

/**
 * What requests hold, on the coordinator and on the ranks; 0 when none runs. Of embeddings the ranks keep no more than
 * the coordinator knows to be idle, and of images' streams those that decode keep the same.
 */
export async function heldCount(client: TesseraClient): Promise<number> {
  const { load, placement } = await client.getCluster();
  assert.ok(load !== undefined && placement !== undefined);
  const { usedBlocks, usedCrossBlocks, embeddings, runningSequences, waitingRequests } = load;
  const stats = await rankStats(client);
  const decoders = stats.slice(0, placement.tensorParallelSize);
  const streams = decoders.map((rank) => rank.streams);
  const stray = [
    ...decoders.map((rank) => Math.max(0, rank.embeddings - load.idleEmbeddings - embeddings)),
    ...stats.slice(decoders.length).map((rank) => rank.embeddings),
    Math.max(...streams) - Math.min(...streams),
    ...stats.map((rank) => rank.sequences),
  ];
  const requests = runningSequences + waitingRequests;
  const held = usedBlocks + usedCrossBlocks + embeddings + requests;
  return held + stray.reduce((sum, count) => sum + count, 0);
}
