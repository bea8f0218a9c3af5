/** A JSON body: its bytes are UTF-8, its nesting is bounded, and no key can change an object's prototype. */
import type { FastifyInstance } from "fastify";
import secure from "secure-json-parse";
import { ServeError } from "@tessera/proto";

/** Objects and lists inside one another. */
export const MAX_JSON_DEPTH = 128;

function wrong(description: string): ServeError {
  return ServeError.field("body", description);
}

function isNested(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** In rounds, not by recursion: what is parsed may be deeper than the stack. */
function checkDepth(value: unknown): void {
  let level = [value].filter(isNested);
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > MAX_JSON_DEPTH) throw wrong(`is nested deeper than ${MAX_JSON_DEPTH}`);
    level = level.flatMap((one) => Object.values(one).filter(isNested));
  }
}

function decode(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw wrong("is no UTF-8");
  }
}

/** @throws ServeError INVALID_ARGUMENT of the field `body` */
export function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) throw wrong("is empty, must be a JSON object");
  const text = decode(bytes);
  let body: unknown;
  try {
    body = secure.parse(text, { protoAction: "error", constructorAction: "ignore" });
  } catch (cause) {
    throw wrong(`is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  checkDepth(body);
  return body;
}

/** The only kind of body that this front reads; another one is refused as a wrong content-type. */
export function addJsonBody(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  const options = { parseAs: "buffer" } as const;
  app.addContentTypeParser<Buffer>("application/json", options, (_, bytes, done) => {
    try {
      done(null, parseJson(bytes));
    } catch (error) {
      done(ServeError.from(error));
    }
  });
}
