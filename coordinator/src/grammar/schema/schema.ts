/** JSON Schema (draft 2020-12; draft 7 when `$schema` says so) → grammar rules, all keywords enforced or refused. */
import { Ajv, type ValidateFunction } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { Expression, RuleBook } from "../expression.js";
import { Refusal } from "../refusal.js";
import {
  isObject,
  isSchema,
  parseJson,
  SchemaDocument,
  type Json,
  type JsonLimits,
  type Schema,
} from "./document.js";
import { SchemaRules, type Validate } from "./rules.js";
import { Shapes } from "./shapes.js";

const ROOT = "tessera:schema";

/** @throws Refusal with the path of what is wrong or not supported. */
export function schemaExpression(source: string, limits: JsonLimits, book: RuleBook): Expression {
  return documentExpression(parseJson(source, limits), book);
}

/** The same for a schema that stands inside other JSON, already within limits. */
export function documentExpression(value: Json | undefined, book: RuleBook): Expression {
  if (!isSchema(value)) throw new Refusal("a schema is an object or a boolean", "#");
  const document = new SchemaDocument(value);
  const validate = checked(value);
  const rules = new SchemaRules(book, document, new Shapes(document, isOld(value)), validate);
  return rules.valueOf(value);
}

/** Of draft 6 or 7. */
function isOld(root: Schema): boolean {
  const draft = isObject(root) ? root["$schema"] : undefined;
  return typeof draft === "string" && /draft-0[67]/.test(draft);
}

/** @throws Refusal when the schema is not valid, or refers to what is not there. */
function checked(root: Schema): Validate {
  // Formats are enforced by the grammar. A schema comes from outside: nothing of it is logged.
  const options = { strict: false, validateFormats: false, logger: false as const };
  const ajv = isOld(root) ? new Ajv(options) : new Ajv2020(options);
  const plain = withRoot(root, "");
  try {
    ajv.addSchema(typeof plain === "boolean" ? { allOf: [plain] } : plain, ROOT);
    ajv.getSchema(ROOT);
  } catch (error) {
    refuseRemote(root, "#");
    const why = error instanceof Error ? error.message : String(error);
    throw new Refusal(`no valid schema: ${why}`, "#");
  }
  const compiled = new Map<string, ValidateFunction>();
  return (schema, value) => {
    const key = JSON.stringify(schema);
    const validator = compiled.get(key) ?? ajv.compile(withRoot(schema, ROOT));
    compiled.set(key, validator);
    return validator(value);
  };
}

/** @throws Refusal at the first reference that leaves the document. */
function refuseRemote(value: Json, path: string): void {
  if (typeof value !== "object" || value === null) return;
  const reference = isObject(value) ? value["$ref"] : undefined;
  if (typeof reference === "string" && !reference.startsWith("#"))
    throw new Refusal(`${reference}: only references within the schema`, `${path}/$ref`);
  for (const [key, part] of Object.entries(value)) refuseRemote(part, `${path}/${key}`);
}

/** A copy whose references lead into the root document, and which has no identity of its own. */
function withRoot(schema: Schema, root: string): Schema {
  return JSON.parse(JSON.stringify(schema), function (this: unknown, key: string, value: Json):
    Json | undefined {
    if (key === "$id" || key === "$schema") return typeof value === "string" ? undefined : value;
    // With it Ajv's validators answer with a promise.
    if (key === "$async" && typeof value === "boolean") return undefined;
    return key === "$ref" && typeof value === "string" && value.startsWith("#")
      ? `${root}${value}`
      : value;
  }) as Schema;
}
