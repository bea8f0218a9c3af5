/** A schema's JSON within limits, and where each part of it stands. */
import { Refusal } from "../refusal.js";
import type { GrammarLimits } from "../limits.js";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type SchemaObject = Record<string, Json>;
/** A part of a schema document: a schema or boolean. */
export type Schema = boolean | SchemaObject;

export type JsonLimits = Pick<GrammarLimits, "jsonDepth" | "jsonNodes">;

/** @throws Refusal on no JSON, or more of it than the limits allow. */
export function parseJson(source: string, limits: JsonLimits): Json {
  let value: Json;
  try {
    value = JSON.parse(source) as Json;
  } catch (error) {
    throw new Refusal(`no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  checkSize(value, limits);
  return value;
}

function checkSize(root: Json, { jsonDepth, jsonNodes }: JsonLimits): void {
  const stack: [Json, number][] = [[root, 0]];
  let count = 0;
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    const [value, depth] = top;
    if (++count > jsonNodes) throw new Refusal(`more than ${jsonNodes} JSON values, the limit`);
    if (typeof value === "number" && !Number.isFinite(value))
      throw new Refusal("a number is beyond the range of a double");
    if (typeof value !== "object" || value === null) continue;
    if (depth >= jsonDepth) throw new Refusal(`JSON nested more than ${jsonDepth} deep, the limit`);
    for (const part of Object.values(value)) stack.push([part, depth + 1]);
  }
}

export function isObject(value: Json | undefined): value is SchemaObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isSchema(value: Json | undefined): value is Schema {
  return typeof value === "boolean" || isObject(value);
}

function pointerPart(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}

/** The document, its paths and its references. */
export class SchemaDocument {
  private readonly paths = new WeakMap<object, string>();

  constructor(readonly root: Schema) {
    const stack: [Json, string][] = [[root, "#"]];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      const [value, path] = top;
      if (typeof value !== "object" || value === null) continue;
      this.paths.set(value, path);
      for (const [key, part] of Object.entries(value))
        stack.push([part, `${path}/${pointerPart(key)}`]);
    }
  }

  /** Where an object of the document stands; of a merged one, where its first part does. */
  pathOf(schema: Schema): string {
    if (typeof schema === "boolean") return "#";
    const path = this.paths.get(schema);
    if (path !== undefined) return path;
    const first = Array.isArray(schema["allOf"]) ? schema["allOf"].find(isObject) : undefined;
    return first === undefined ? "#" : this.pathOf(first);
  }

  /** @throws Refusal on a reference that leaves the document, or leads to no schema. */
  resolve(reference: Json | undefined, from: Schema): Schema {
    const path = `${this.pathOf(from)}/$ref`;
    if (typeof reference !== "string" || !reference.startsWith("#"))
      throw new Refusal(`${JSON.stringify(reference)}: only references within the schema`, path);
    if (reference !== "#" && !reference.startsWith("#/"))
      throw new Refusal(`${JSON.stringify(reference)}: anchors are not supported`, path);
    let at: Json | undefined = this.root;
    for (const part of decode(reference, path).split("/").slice(1)) {
      const key: string = part.replaceAll("~1", "/").replaceAll("~0", "~");
      at = stepInto(at, key);
    }
    if (!isSchema(at)) throw new Refusal(`${reference} leads to no schema`, path);
    return at;
  }
}

function stepInto(at: Json | undefined, key: string): Json | undefined {
  if (Array.isArray(at)) return /^\d+$/.test(key) ? at[Number(key)] : undefined;
  return isObject(at) && Object.hasOwn(at, key) ? at[key] : undefined;
}

function decode(reference: string, path: string): string {
  try {
    return decodeURIComponent(reference.slice(1));
  } catch {
    throw new Refusal(`${reference} is no JSON pointer`, path);
  }
}
