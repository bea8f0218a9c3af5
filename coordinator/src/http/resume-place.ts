/**
 * `<resume token>.<format>.<created>:<event index>`, the id of a server-sent event: where a stream stands, and what its
 * chunks say beside the events, so that a resumed stream has the chunks of the uncut one.
 */
import { ServeError } from "@tessera/proto";
import type { StreamFormat } from "@tessera/proto/openai";
import type { Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";

export interface PlacedFormat extends StreamFormat {
  kind: "chat" | "text";
  echo: boolean;
}

export interface Place {
  resumeToken: string;
  format: PlacedFormat;
  /** The last event that the client has. */
  index: number;
}

const PLACE = /^([\w-]{1,64})\.([ct])([a-z]{0,8})(\d{1,2})\.([0-9a-z]{1,9}):(\d{1,15})$/;
const MAX_QUOTED = 100;
const FLAGS = { i: "tokenIds", l: "logprobs", p: "promptLogprobs", e: "echo" } as const;

/** All of an event's id before its index. */
export function placePrefix(resumeToken: string, format: PlacedFormat): string {
  const flags = Object.entries(FLAGS)
    .filter(([, name]) => format[name])
    .map(([letter]) => letter);
  if (format.usage !== "none") flags.push(format.usage === "end" ? "u" : "a");
  const kind = format.kind === "chat" ? "c" : "t";
  const created = format.createdSeconds.toString(36);
  return `${resumeToken}.${kind}${flags.join("")}${format.n}.${created}`;
}

/** @throws ServeError INVALID_ARGUMENT */
export function readPlace(text: string | undefined): Place {
  if (text === undefined)
    throw ServeError.field("last-event-id", "is missing: the id of the last event that came");
  const found = PLACE.exec(text);
  if (found === null)
    throw ServeError.field(
      "last-event-id",
      `is ${JSON.stringify(text.slice(0, MAX_QUOTED))}, must be an event's id`,
    );
  const [, resumeToken = "", kind, flags = "", n, created = "", index] = found;
  const has = (letter: string) => flags.includes(letter);
  const usage = has("a") ? "always" : has("u") ? "end" : "none";
  return {
    resumeToken,
    index: Number(index),
    format: {
      kind: kind === "c" ? "chat" : "text",
      createdSeconds: parseInt(created, 36),
      n: Number(n),
      usage,
      tokenIds: has("i"),
      logprobs: has("l"),
      promptLogprobs: has("p"),
      echo: has("e"),
    },
  };
}

/** Names the events of one stream; undefined for one that cannot be resumed. */
export function placedEvents(format: PlacedFormat): (event: Event) => string | undefined {
  let prefix: string | undefined;
  return ({ index, kind }) => {
    if (kind.case === "started" && kind.value.resumeToken !== "")
      prefix = placePrefix(kind.value.resumeToken, format);
    return prefix === undefined ? undefined : `${prefix}:${index}`;
  };
}
