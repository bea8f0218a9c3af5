/** What a front is given. */
import { ServeError } from "@tessera/proto";
import type { Access } from "../access/access.js";
import type { Serving } from "../engine/serving.js";
import type { Streams } from "./streams.js";

export interface Front {
  serving: Serving;
  streams: Streams;
  access: Access;
}

/** Counts a refusal. Every error that a front answers with passes here once. */
export function refused({ serving }: Front, error: unknown): ServeError {
  const serve = ServeError.from(error);
  serving.metrics.refused.inc({ code: serve.code });
  return serve;
}
