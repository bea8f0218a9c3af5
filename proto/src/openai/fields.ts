/** Fields of a JSON body, read as what they must be; a wrong one is named with its value. */
import type { JsonObject } from "@bufbuild/protobuf";
import { ServeError } from "../errors.js";

export type Json = Record<string, unknown>;

/** Objects and lists inside one another; what is deeper could not be written again. */
const MAX_DEPTH = 64;
const MAX_QUOTED = 200;

export function asObject(value: unknown, field: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw ServeError.field(field, "must be an object");
  return value as Json;
}

/** @throws ServeError NOT_BUILT for the first key that is none of `known` */
export function refuseUnknown(json: Json, known: readonly string[]): void {
  const unknown = Object.keys(json).find((key) => !known.includes(key));
  if (unknown !== undefined)
    throw ServeError.field(unknown, "is not known or not served by this version", "NOT_BUILT");
}

/** A value in a message: cut, so that a long one does not fill the answer. */
export function quote(value: unknown): string {
  if (typeof value === "object" && value !== null)
    return Array.isArray(value) ? "a list" : "an object";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED).toWellFormed()}…` : text;
}

function fitsDepth(value: unknown, left: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return left > 0 && Object.values(value).every((part) => fitsDepth(part, left - 1));
}

/** An object of JSON that can be written again. */
export function asJsonObject(value: unknown, field: string): JsonObject {
  const json = asObject(value, field);
  if (!fitsDepth(json, MAX_DEPTH))
    throw ServeError.field(field, `is nested deeper than ${MAX_DEPTH}`);
  return json as JsonObject;
}

export function asText(value: unknown, field: string): string {
  if (typeof value !== "string")
    throw ServeError.field(field, `is ${quote(value)}, must be a text`);
  return value;
}

export function asList(value: unknown, field: string): unknown[] {
  if (!Array.isArray(value)) throw ServeError.field(field, `is ${quote(value)}, must be a list`);
  return value;
}

/** One of `allowed`, which the message lists. */
export function oneOf<T extends string>(value: unknown, allowed: readonly T[], field: string): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined)
    throw ServeError.field(field, `is ${quote(value)}, must be ${allowed.join(" or ")}`);
  return found;
}

/** Typed fields of a body; a wrong type is named. */
export class Body {
  constructor(readonly json: Json) {}
  private typed<T>(key: string, type: string, ok: (value: unknown) => boolean): T | undefined {
    const value = this.json[key];
    if (value === undefined || value === null) return undefined;
    if (!ok(value)) throw ServeError.field(key, `is ${JSON.stringify(value)}, must be ${type}`);
    return value as T;
  }
  number(key: string): number | undefined {
    return this.typed(key, "a number", (value) => typeof value === "number");
  }
  whole(key: string): number | undefined {
    return this.typed(
      key,
      "a whole number of 0 or more",
      (v) => Number.isSafeInteger(v) && (v as number) >= 0 && (v as number) < 2 ** 32,
    );
  }
  /** Between −2⁵³ and 2⁵³. */
  integer(key: string): number | undefined {
    return this.typed(key, "a whole number", (value) => Number.isSafeInteger(value));
  }
  int32(key: string): number | undefined {
    const fits = (value: unknown) => Number.isInteger(value) && (value as number) >> 0 === value;
    return this.typed(key, "a whole number of 32 bits", fits);
  }
  text(key: string): string | undefined {
    return this.typed(key, "a text", (value) => typeof value === "string");
  }
  flag(key: string): boolean | undefined {
    return this.typed(key, "true or false", (value) => typeof value === "boolean");
  }
  texts(key: string): string[] {
    const value = this.json[key];
    if (typeof value === "string") return [value];
    return (
      this.typed<string[]>(
        key,
        "a text or a list of texts",
        (v) => Array.isArray(v) && v.every((t) => typeof t === "string"),
      ) ?? []
    );
  }
  ids(key: string): number[] {
    return (
      this.typed<number[]>(
        key,
        "a list of token ids",
        (v) => Array.isArray(v) && v.every((t) => Number.isInteger(t) && t >= 0 && t < 2 ** 32),
      ) ?? []
    );
  }
}

/** Keys whose value is undefined are left out. */
export function defined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
