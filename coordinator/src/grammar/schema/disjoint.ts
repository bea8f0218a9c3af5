/** Whether no value can match two branches of a `oneOf`. */
import { isObject, type Json, type Schema } from "./document.js";
import { both, canonical, type JsonType, type Shape } from "./shape.js";

/**
 * `kept`, when nothing written for it matches `rival`; narrowed where a property that `rival` needs must stay away;
 * undefined when they may overlap.
 */
export function areDisjoint(kept: Shape, rival: Shape): Shape | undefined {
  const common = [...kept.types].filter((type) => overlaps(type, rival.types));
  if (common.length === 0) return kept;
  if (valuesApart(kept, rival)) return kept;
  let shape = kept;
  for (const type of common) {
    if (type === "object") {
      const apart = objectsApart(shape, rival);
      if (apart === undefined) return undefined;
      shape = apart;
    } else if (!scalarsApart(type, kept, rival)) return undefined;
  }
  return shape;
}

function overlaps(type: JsonType, others: ReadonlySet<JsonType>): boolean {
  if (type === "integer" || type === "number") return others.has("integer") || others.has("number");
  return others.has(type);
}

function typeOf(value: Json): JsonType {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  if (typeof value === "string") return "string";
  return typeof value === "boolean" ? "boolean" : "object";
}

function valuesApart(a: Shape, b: Shape): boolean {
  const [fewer, other] = a.values === undefined ? [b, a] : [a, b];
  if (fewer.values === undefined) return false;
  const known = new Set(other.values?.map(canonical));
  return fewer.values.every((value) =>
    other.values === undefined
      ? !overlaps(typeOf(value), other.types)
      : !known.has(canonical(value)),
  );
}

function scalarsApart(type: JsonType, a: Shape, b: Shape): boolean {
  if (type === "integer" || type === "number") return below(a, b) || below(b, a);
  if (type === "string")
    return (
      (a.maxLength !== undefined && a.maxLength < b.minLength) ||
      (b.maxLength !== undefined && b.maxLength < a.minLength)
    );
  if (type === "array")
    return (
      (a.maxItems !== undefined && a.maxItems < b.minItems) ||
      (b.maxItems !== undefined && b.maxItems < a.minItems)
    );
  return false;
}

function below(a: Shape, b: Shape): boolean {
  if (a.max === undefined || b.min === undefined) return false;
  return a.max < b.min || (a.max === b.min && (a.maxOpen || b.minOpen));
}

function objectsApart(kept: Shape, rival: Shape): Shape | undefined {
  for (const name of kept.required) {
    const theirs = rival.properties.get(name);
    const ours = kept.properties.get(name);
    if (theirs !== undefined && ours !== undefined && schemasApart(ours, theirs)) return kept;
    if (theirs === false) return kept;
    const unknown = theirs === undefined && rival.patternProperties.size === 0;
    if (unknown && rival.additional === false) return kept;
  }
  for (const name of rival.required) {
    if (kept.required.has(name)) continue;
    const ours = kept.properties.get(name);
    if (ours !== undefined && ours !== false) continue;
    const properties = new Map(kept.properties);
    properties.set(name, both(ours, false) ?? false);
    return { ...kept, properties };
  }
  return undefined;
}

/** By `const`, `enum` and `type` as they stand there. */
function schemasApart(a: Schema, b: Schema): boolean {
  if (!isObject(a) || !isObject(b)) return a === false || b === false;
  const [ours, theirs] = [listOf(a), listOf(b)];
  if (ours !== undefined && theirs !== undefined) {
    const known = new Set(theirs.map(canonical));
    return ours.every((value) => !known.has(canonical(value)));
  }
  const [left, right] = [a["type"], b["type"]];
  if (typeof left !== "string" || typeof right !== "string" || left === right) return false;
  return !(isNumber(left) && isNumber(right));
}

function isNumber(type: string): boolean {
  return type === "integer" || type === "number";
}

function listOf(schema: { [key: string]: Json }): Json[] | undefined {
  if (schema["const"] !== undefined) return [schema["const"]];
  return Array.isArray(schema["enum"]) ? schema["enum"] : undefined;
}
