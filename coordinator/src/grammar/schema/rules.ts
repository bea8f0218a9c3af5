/** Shapes → grammar rules. Whatever the rules let through, the schema accepts; they need not let all of it through. */
import { alt, NEVER, text, type Expression, type RuleBook } from "../expression.js";
import { Refusal } from "../refusal.js";
import { arrayRule } from "./arrays.js";
import type { Json, Schema, SchemaDocument } from "./document.js";
import { numberExpression } from "./numbers.js";
import { objectRule } from "./objects.js";
import type { Shape } from "./shape.js";
import type { Shapes } from "./shapes.js";
import { hasFormats, stringRule } from "./strings.js";

/** Whether a value is valid under a part of the document, as Ajv sees it. */
export type Validate = (schema: Schema, value: Json) => boolean;

/** What the rules of one schema share. */
export interface RuleContext {
  book: RuleBook;
  document: SchemaDocument;
  shapes: Shapes;
  validate: Validate;
  /** Any value that matches a schema. */
  valueOf(schema: Schema): Expression;
}

export class SchemaRules implements RuleContext {
  constructor(
    readonly book: RuleBook,
    readonly document: SchemaDocument,
    readonly shapes: Shapes,
    readonly validate: Validate,
  ) {}

  valueOf(schema: Schema): Expression {
    if (schema === false) return NEVER;
    const key = schema === true ? "{}" : JSON.stringify(withoutNotes(schema));
    return this.book.rule(`value:${key}`, () => this.body(schema));
  }

  private body(schema: Schema): Expression {
    const shapes = this.shapes.of(schema);
    const path = this.document.pathOf(schema);
    const ways = shapes.flatMap((shape) =>
      shape.values === undefined
        ? this.typed(shape, path)
        : shape.values
            .filter((value) => this.validate(schema, value))
            .filter((value) => at(path, () => hasFormats(shape, value)))
            .map((value) => text(JSON.stringify(value))),
    );
    return ways.length === 0 ? NEVER : alt(...ways);
  }

  private typed(shape: Shape, path: string): Expression[] {
    const ways: Expression[] = [];
    const { types } = shape;
    if (types.has("null")) ways.push(text("null"));
    if (types.has("boolean")) ways.push(text("true"), text("false"));
    if (types.has("number") || types.has("integer")) ways.push(this.number(shape, path));
    if (types.has("string")) ways.push(at(path, () => stringRule(shape, this.book)));
    if (types.has("array")) ways.push(at(path, () => arrayRule(shape, this)));
    if (types.has("object")) ways.push(at(path, () => objectRule(shape, this)));
    return ways;
  }

  private number(shape: Shape, path: string): Expression {
    const [multipleOf, ...others] = shape.multiples;
    if (others.length > 0)
      throw new Refusal("more than one multipleOf on a value", `${path}/multipleOf`);
    const integer = !shape.types.has("number");
    const keyword =
      multipleOf === undefined ? (shape.min === undefined ? "maximum" : "minimum") : "multipleOf";
    return at(`${path}/${keyword}`, () =>
      numberExpression({ ...shape, integer, multipleOf }, this.book),
    );
  }
}

/** A refusal without a path gets this one; one with a path relative to the schema (`/pattern`) is appended. */
function at<T>(path: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof Refusal) || error.path?.startsWith("#") === true) throw error;
    const where = error.path ?? "";
    const message = where === "" ? error.message : error.message.slice(where.length + 2);
    throw new Refusal(message, path + where);
  }
}

const NOTES = ["title", "description", "default", "examples", "$comment", "deprecated"];

/** Rules are told apart by what they say. */
function withoutNotes(schema: { [key: string]: Json }): { [key: string]: Json } {
  return Object.fromEntries(Object.entries(schema).filter(([key]) => !NOTES.includes(key)));
}
