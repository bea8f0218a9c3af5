/** /v1/batches: many requests from a file, answered behind the live ones. */
import type { FastifyInstance } from "fastify";
import { ServeError } from "@tessera/proto";
import { asObject, asText, oneOf, readMetadata, refuseUnknown } from "@tessera/proto/openai";
import { callerOf } from "../call.js";
import type { AskedBatch, Batches } from "../batches/batches.js";
import { batchBody, ENDPOINTS } from "../batches/record.js";
import {
  batchesSchema,
  batchSchema,
  cancelBatchSchema,
  createBatchSchema,
} from "../schemas/batches.js";
import { kept } from "../storage/kept.js";
import { listBody, pageOf, readPage } from "../storage/page.js";
import type { Routes } from "./index.js";

const PATH = "/v1/batches";
const PAGE = { limit: 20, most: 100 };
const KNOWN = ["input_file_id", "endpoint", "completion_window", "metadata"];
const MAX_METADATA = 16;
const MAX_KEY = 64;
const MAX_VALUE = 512;

function checkMetadata(metadata: Record<string, string> | undefined): void {
  const entries = Object.entries(metadata ?? {});
  if (entries.length > MAX_METADATA)
    throw ServeError.field("metadata", `has ${entries.length} entries, limit ${MAX_METADATA}`);
  for (const [key, { length }] of entries) {
    if (key.length > MAX_KEY)
      throw ServeError.field("metadata", `has a key of ${key.length}, limit ${MAX_KEY}`);
    if (length > MAX_VALUE)
      throw ServeError.field("metadata", `has a text of ${length}, limit ${MAX_VALUE}`);
  }
}

/** @throws ServeError INVALID_ARGUMENT, NOT_BUILT */
function readBatch(value: unknown): AskedBatch {
  const json = asObject(value, "body");
  refuseUnknown(json, KNOWN);
  const inputFileId = asText(json["input_file_id"], "input_file_id");
  const endpoint = oneOf(json["endpoint"], ENDPOINTS, "endpoint");
  oneOf(json["completion_window"], ["24h"], "completion_window");
  const metadata = readMetadata(json);
  checkMetadata(metadata);
  return { inputFileId, endpoint, metadata: metadata ?? null };
}

interface OfBatch {
  Params: { id: string };
}

export function batchRoutes(store: Batches | undefined): Routes {
  return (app: FastifyInstance) => {
    app.post(PATH, { schema: createBatchSchema }, async (request) => {
      const batches = kept(store, PATH);
      return batchBody(await batches.create(callerOf(request), readBatch(request.body)));
    });
    app.get(PATH, { schema: batchesSchema }, (request, reply) => {
      const all = kept(store, PATH).all(callerOf(request).tenant);
      const { entries, more } = pageOf(all, readPage(request.query, PAGE));
      return reply.send(listBody(entries.map(batchBody), more));
    });
    app.get<OfBatch>(`${PATH}/:id`, { schema: batchSchema }, (request, reply) => {
      const { tenant } = callerOf(request);
      return reply.send(batchBody(kept(store, PATH).get(tenant, request.params.id)));
    });
    app.post<OfBatch>(`${PATH}/:id/cancel`, { schema: cancelBatchSchema }, async (request) => {
      const { tenant } = callerOf(request);
      return batchBody(await kept(store, PATH).cancel(tenant, request.params.id));
    });
  };
}
