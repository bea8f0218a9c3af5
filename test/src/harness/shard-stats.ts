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
