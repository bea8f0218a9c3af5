/** One page of a list, as OpenAI's lists are asked for: newest first, from behind an entry on. */
import { ServeError } from "@tessera/proto";
import { oneOf, refuseUnknown } from "@tessera/proto/openai";

export interface PageAsk {
  after: string | undefined;
  limit: number;
  order: "asc" | "desc";
}

export interface Entry {
  id: string;
  createdMs: number;
}

export interface Page<T> {
  entries: T[];
  more: boolean;
}

/** `query`: of the URL. @throws ServeError INVALID_ARGUMENT */
export function readPage(
  query: unknown,
  { limit: fallback, most, known = [] }: { limit: number; most: number; known?: string[] },
): PageAsk {
  const asked = query as Record<string, unknown>;
  refuseUnknown(asked, ["after", "limit", "order", ...known]);
  const { after, limit: text = String(fallback), order = "desc" } = asked;
  const limit = typeof text === "string" && /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > most)
    throw ServeError.field("limit", `is ${JSON.stringify(text)}, must be 1 to ${most}`);
  if (after !== undefined && typeof after !== "string")
    throw ServeError.field("after", "is given twice");
  return { after, limit, order: oneOf(order, ["asc", "desc"], "order") };
}

/** @throws ServeError INVALID_ARGUMENT when `after` is none of them */
export function pageOf<T extends Entry>(all: T[], { after, limit, order }: PageAsk): Page<T> {
  const sign = order === "asc" ? 1 : -1;
  const compare = (a: T, b: T) => a.createdMs - b.createdMs || (a.id < b.id ? -1 : 1);
  const sorted = [...all].sort((a, b) => sign * compare(a, b));
  const at = after === undefined ? -1 : sorted.findIndex(({ id }) => id === after);
  if (after !== undefined && at < 0)
    throw ServeError.field("after", `is ${JSON.stringify(after)}, must be an id of the list`);
  const entries = sorted.slice(at + 1, at + 1 + limit);
  return { entries, more: at + 1 + limit < sorted.length };
}

export function listBody<T extends { id: string }>(data: T[], more: boolean): object {
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: more,
  };
}
