/** JSON objects of a shape: named properties in the order of the schema, then free ones. */
import { alt, NEVER, seq, text, type Expression } from "../expression.js";
import { Refusal } from "../refusal.js";
import type { Schema } from "./document.js";
import type { RuleContext } from "./rules.js";
import { both, matchingPatterns, type Shape } from "./shape.js";
import { COLON, space } from "./space.js";
import { hasFormats, keyBeside } from "./strings.js";

/** Properties that `minProperties` and `maxProperties` count. */
const COUNT_MAX = 256;

interface Member {
  key: Expression;
  value: Expression;
}

interface ObjectPlan {
  named: { name: string; schema: Schema; required: boolean }[];
  /** What may follow the named ones, any number of times. */
  free: Member | undefined;
  min: number;
  max: number | undefined;
  id: number;
}

export function objectRule(shape: Shape, context: RuleContext): Expression {
  const named = namedProperties(shape, context);
  if (named === undefined) return NEVER;
  const free = freeProperty(shape, named.length, context);
  const requiredCount = named.filter(({ required }) => required).length;
  const min = shape.minProperties > requiredCount ? shape.minProperties : 0;
  // Free keys may repeat, and a repeated key counts once: they can stand for one property, not for two.
  if (free !== undefined && min > named.length + 1)
    throw new Refusal("more than 1 is supported for named properties only", "/minProperties");
  const max = shape.maxProperties;
  if (Math.max(min, free === undefined ? 0 : (max ?? 0)) > COUNT_MAX)
    throw new Refusal(`more than ${COUNT_MAX} properties to count, the limit`, "/maxProperties");
  const bounded = max !== undefined && (free !== undefined || max < named.length) ? max : undefined;
  const key = JSON.stringify([
    named,
    free === undefined ? null : [free.key, free.value],
    min,
    bounded ?? null,
  ]);
  const plan = { named, free, min, max: bounded, id: context.book.idOf(key) };
  return seq(text("{"), members(plan, { index: 0, count: 0 }, context));
}

/** Undefined when a required one can never be there. */
function namedProperties(shape: Shape, context: RuleContext): ObjectPlan["named"] | undefined {
  const allowed = (name: string) =>
    shape.names.every(
      (schema) =>
        context.validate(schema, name) &&
        context.shapes.of(schema).some((each) => hasFormats(each, name)),
    );
  const names = new Set([...shape.properties.keys(), ...shape.required]);
  const named: ObjectPlan["named"] = [];
  for (const name of names) {
    const schema = schemaOf(shape, name);
    const required = shape.required.has(name);
    const possible = schema !== false && allowed(name) && context.shapes.of(schema).length > 0;
    if (possible) named.push({ name, schema, required });
    else if (required) return undefined;
  }
  return named;
}

function schemaOf(shape: Shape, name: string): Schema {
  const matching = matchingPatterns(shape, name);
  const own = shape.properties.get(name);
  const all = matching.reduce<Schema | undefined>((sum, each) => both(sum, each), own);
  if (own !== undefined || matching.length > 0) return all ?? true;
  return shape.additional ?? true;
}

/** An object that names properties and says nothing of others gets no others. */
function freeProperty(shape: Shape, namedCount: number, context: RuleContext): Member | undefined {
  const patterns = [...shape.patternProperties].filter(([, schema]) => schema !== false);
  const taken = [...new Set([...shape.properties.keys(), ...shape.required])];
  if (shape.patternProperties.size > 0) {
    const [first] = patterns;
    if (first === undefined || taken.some((name) => matchingPatterns(shape, name).length > 0))
      return undefined;
    if (patterns.length < shape.patternProperties.size)
      throw new Refusal(
        "a pattern that is false beside others is not supported",
        "/patternProperties",
      );
    const same = patterns.every(
      ([, schema]) => JSON.stringify(schema) === JSON.stringify(first[1]),
    );
    if (!same || shape.names.length > 0)
      throw new Refusal(
        "several patterns with different schemas, or beside propertyNames, are not supported",
        "/patternProperties",
      );
    const keys = patterns.map(([pattern]) => context.valueOf({ type: "string", pattern }));
    return { key: alt(...keys), value: context.valueOf(first[1]) };
  }
  if (shape.additional === false || (shape.additional === undefined && namedCount > 0))
    return undefined;
  const value = context.valueOf(shape.additional ?? true);
  if (shape.names.length === 0) return { key: keyBeside(context.book, taken), value };
  if (taken.length > 0) return undefined;
  return { key: context.valueOf({ allOf: [{ type: "string" }, ...shape.names] }), value };
}

interface Place {
  index: number;
  /** Members so far; no more than 1 where none are counted. */
  count: number;
}

/** What follows, with the closing brace. */
function members(plan: ObjectPlan, { index, count }: Place, context: RuleContext): Expression {
  const { book } = context;
  return book.rule(`members:${index}:${count}:${plan.id}`, () => {
    const counted = plan.min > 0 || plan.max !== undefined;
    const most = plan.max ?? (counted ? plan.min : 1);
    const after = Math.min(count + 1, most);
    const full = plan.max !== undefined && count >= plan.max;
    const lead = seq(...(count === 0 ? [] : [text(",")]), space(book));
    const property = plan.named[index];
    if (property === undefined) {
      const end = count >= plan.min ? [seq(space(book), text("}"))] : [];
      if (plan.free === undefined || full || count + 1 < plan.min) return end[0] ?? NEVER;
      const next = members(plan, { index, count: after }, context);
      return alt(...end, seq(lead, plan.free.key, COLON, plan.free.value, next));
    }
    const skip = members(plan, { index: index + 1, count }, context);
    const take = full
      ? NEVER
      : seq(
          lead,
          text(JSON.stringify(property.name)),
          COLON,
          context.valueOf(property.schema),
          members(plan, { index: index + 1, count: after }, context),
        );
    return property.required ? take : alt(take, skip);
  });
}
