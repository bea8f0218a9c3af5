/** Schemas → the shapes whose union they are: references followed, alternatives spread out, conjunctions merged. */
import { Refusal } from "../refusal.js";
import { areDisjoint } from "./disjoint.js";
import {
  isObject,
  isSchema,
  type Json,
  type Schema,
  type SchemaDocument,
  type SchemaObject,
} from "./document.js";
import { ANY_SHAPE, JSON_TYPES, merge, type JsonType, type Shape } from "./shape.js";

/** Shapes of one schema, and steps of finding them in a whole document. */
const MAX_SHAPES = 128;
const MAX_MERGES = 20_000;

/** No grammar here can say them: refused with their path, wherever a value could reach them. */
const REFUSED: ReadonlyMap<string, string> = new Map([
  ["not", "is not supported; say what is allowed instead"],
  ["if", "conditions are not supported; write anyOf with the cases"],
  ["maxContains", "is not supported"],
  ["$dynamicRef", "is not supported; use $ref"],
  ["$recursiveRef", "is not supported; use $ref"],
]);

/** Draft 7 passes over them, and they change what is valid. What only narrows a value is enforced all the same. */
const NOT_IN_OLD = ["prefixItems", "minContains"];

export class Shapes {
  private mergeCount = 0;
  private readonly known = new Map<string, Shape[]>();

  /** `old`: the schema is of draft 6 or 7. */
  constructor(
    private readonly document: SchemaDocument,
    private readonly old: boolean,
  ) {}

  /** @throws Refusal naming the keyword that is not supported. */
  of(schema: Schema): Shape[] {
    const key = JSON.stringify(schema);
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const shapes = this.flatten(schema, []);
    this.known.set(key, shapes);
    return shapes;
  }

  /** `open`: schemas being flattened; one that leads back to itself adds nothing to what it says. */
  private flatten(schema: Schema, open: readonly Schema[]): Shape[] {
    if (schema === true) return [ANY_SHAPE];
    if (schema === false || open.includes(schema)) return [];
    const path = this.document.pathOf(schema);
    for (const [keyword, why] of REFUSED)
      if (schema[keyword] !== undefined) throw new Refusal(why, `${path}/${keyword}`);
    for (const keyword of this.old ? NOT_IN_OLD : [])
      if (schema[keyword] !== undefined)
        throw new Refusal("is no keyword of this draft", `${path}/${keyword}`);
    refuseProto(schema, path);
    if (typeof schema["$id"] === "string" && path !== "#")
      throw new Refusal("is supported at the root only", `${path}/$id`);
    const inner = [...open, schema];
    let shapes = [shapeOf(schema)].filter((shape) => shape !== undefined);
    const and = (more: Shape[]) => {
      shapes = this.product(shapes, more, path);
    };
    if (schema["$ref"] !== undefined)
      and(this.flatten(this.document.resolve(schema["$ref"], schema), inner));
    for (const part of schemasIn(schema["allOf"])) and(this.flatten(part, inner));
    if (schema["anyOf"] !== undefined)
      and(schemasIn(schema["anyOf"]).flatMap((part) => this.flatten(part, inner)));
    if (schema["oneOf"] !== undefined) shapes = this.exclusive(shapes, { schema, path, inner });
    for (const cases of dependencies(schema))
      and(cases.flatMap((part) => this.flatten(part, inner)));
    return shapes.map((shape) => closed(shape, schema));
  }

  private product(a: Shape[], b: Shape[], path: string): Shape[] {
    this.mergeCount += 1 + a.length * b.length;
    if (this.mergeCount > MAX_MERGES)
      throw new Refusal(`more than ${MAX_MERGES} combinations of alternatives, the limit`, path);
    const merged = a.flatMap((left) =>
      b.map((right) => merge(left, right)).filter((shape) => shape !== undefined),
    );
    if (merged.length > MAX_SHAPES)
      throw new Refusal(`more than ${MAX_SHAPES} combinations of alternatives, the limit`, path);
    return merged;
  }

  /** `oneOf`: what a branch lets through, none of the others may match. */
  private exclusive(
    shapes: Shape[],
    { schema, path, inner }: { schema: SchemaObject; path: string; inner: readonly Schema[] },
  ): Shape[] {
    const branches = schemasIn(schema["oneOf"]).map((part) => this.flatten(part, inner));
    const merged = branches.map((branch) => this.product(shapes, branch, path));
    return merged.flatMap((own, i) =>
      own.map((shape) => {
        let kept = shape;
        branches.forEach((other, j) => {
          if (i === j) return;
          for (const rival of other) {
            this.mergeCount++;
            const apart = areDisjoint(kept, rival);
            if (apart === undefined)
              throw new Refusal(
                `branches ${i} and ${j} may both match; write anyOf, or tell them apart by a ` +
                  "type, a required property or a const",
                `${path}/oneOf`,
              );
            kept = apart;
          }
        });
        return kept;
      }),
    );
  }
}

/** Ajv does not count such a property among the named ones. */
function refuseProto(schema: SchemaObject, path: string): void {
  const { properties } = schema;
  if (!isObject(properties) || !Object.hasOwn(properties, "__proto__")) return;
  for (const keyword of ["additionalProperties", "unevaluatedProperties"])
    if (schema[keyword] !== undefined)
      throw new Refusal("is not supported beside a property __proto__", `${path}/${keyword}`);
}

function schemasIn(value: Json | undefined): Schema[] {
  return Array.isArray(value) ? value.filter(isSchema) : [];
}

function entriesOf(value: Json | undefined): [string, Json][] {
  return isObject(value) ? Object.entries(value) : [];
}

/** Each dependency as two cases: without the property, or with what it asks for. */
function dependencies(schema: SchemaObject): Schema[][] {
  const asked = ["dependentRequired", "dependentSchemas", "dependencies"].flatMap((keyword) =>
    entriesOf(schema[keyword]),
  );
  return asked.map(([name, needs]) => {
    const then: Schema = Array.isArray(needs)
      ? { required: needs }
      : isSchema(needs)
        ? needs
        : true;
    return [{ properties: { [name]: false } }, { allOf: [{ required: [name] }, then] }];
  });
}

/** `unevaluated…` of a schema, once all that evaluates beside it is merged in. */
function closed(shape: Shape, schema: SchemaObject): Shape {
  const properties = schema["unevaluatedProperties"];
  const items = schema["unevaluatedItems"];
  return {
    ...shape,
    additional: shape.additional ?? (isSchema(properties) ? properties : undefined),
    items: shape.items ?? (isSchema(items) ? items : undefined),
  };
}

function numberIn(schema: SchemaObject, keyword: string): number | undefined {
  const value = schema[keyword];
  return typeof value === "number" ? value : undefined;
}

function typesOf(schema: SchemaObject): ReadonlySet<JsonType> {
  const named = schema["type"];
  if (named === undefined) return ANY_SHAPE.types;
  const list = Array.isArray(named) ? named : [named];
  return new Set(
    JSON_TYPES.filter((type) => list.includes(type)).filter(
      (type) => type !== "integer" || !list.includes("number"),
    ),
  );
}

/** The schema's own keywords; undefined when nothing can match. Ajv has checked their types before. */
function shapeOf(schema: SchemaObject): Shape | undefined {
  const values =
    schema["const"] !== undefined
      ? [schema["const"]]
      : Array.isArray(schema["enum"])
        ? schema["enum"]
        : undefined;
  const shape: Shape = {
    ...ANY_SHAPE,
    types: typesOf(schema),
    values,
    ...boundsOf(schema),
    ...stringPart(schema),
    ...arrayPart(schema),
    ...objectPart(schema),
  };
  const both = values !== undefined && schema["const"] !== undefined ? schema["enum"] : undefined;
  if (Array.isArray(both)) return merge(shape, { ...ANY_SHAPE, values: both });
  return shape;
}

function boundsOf(schema: SchemaObject): Partial<Shape> {
  const min = numberIn(schema, "minimum");
  const max = numberIn(schema, "maximum");
  const above = numberIn(schema, "exclusiveMinimum");
  const below = numberIn(schema, "exclusiveMaximum");
  const step = numberIn(schema, "multipleOf");
  const minOpen = above !== undefined && (min === undefined || above >= min);
  const maxOpen = below !== undefined && (max === undefined || below <= max);
  return {
    min: minOpen ? above : min,
    max: maxOpen ? below : max,
    minOpen,
    maxOpen,
    multiples: step === undefined ? [] : [step],
  };
}

function stringPart(schema: SchemaObject): Partial<Shape> {
  const { pattern, format } = schema;
  return {
    minLength: numberIn(schema, "minLength") ?? 0,
    maxLength: numberIn(schema, "maxLength"),
    patterns: typeof pattern === "string" ? [pattern] : [],
    formats: typeof format === "string" ? [format] : [],
  };
}

function arrayPart(schema: SchemaObject): Partial<Shape> {
  const { items, prefixItems, additionalItems, contains } = schema;
  // Draft 7 writes prefixItems as a list under items, and the rest as additionalItems.
  const listed = Array.isArray(items);
  const rest = listed ? additionalItems : items;
  const count = numberIn(schema, "minContains") ?? 1;
  return {
    prefix: schemasIn(listed ? items : prefixItems),
    items: isSchema(rest) ? rest : undefined,
    minItems: numberIn(schema, "minItems") ?? 0,
    maxItems: numberIn(schema, "maxItems"),
    unique: schema["uniqueItems"] === true,
    contains: isSchema(contains) && count > 0 ? [{ schema: contains, count }] : [],
  };
}

function objectPart(schema: SchemaObject): Partial<Shape> {
  const map = (value: Json | undefined) =>
    new Map(entriesOf(value).filter((entry): entry is [string, Schema] => isSchema(entry[1])));
  const { additionalProperties, propertyNames, required } = schema;
  const names = Array.isArray(required) ? required.filter((name) => typeof name === "string") : [];
  return {
    properties: map(schema["properties"]),
    patternProperties: map(schema["patternProperties"]),
    additional: isSchema(additionalProperties) ? additionalProperties : undefined,
    names: isSchema(propertyNames) ? [propertyNames] : [],
    required: new Set(names),
    minProperties: numberIn(schema, "minProperties") ?? 0,
    maxProperties: numberIn(schema, "maxProperties"),
  };
}
