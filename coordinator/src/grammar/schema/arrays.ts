/** JSON arrays of a shape. */
import { alt, EMPTY, NEVER, repeat, seq, text, type Expression } from "../expression.js";
import { Refusal } from "../refusal.js";
import type { Schema } from "./document.js";
import type { RuleContext } from "./rules.js";
import { both, canonical, type Shape } from "./shape.js";
import { space } from "./space.js";

/** Items that a rule each counts; more are counted by XGrammar. */
const CHAIN = 64;
/** `minItems`, and fixed items. */
const COUNT_MAX = 1024;

interface ItemPlan {
  /** Schemas of the first items. */
  first: Schema[];
  rest: Schema;
  min: number;
  max: number | undefined;
}

export function arrayRule(shape: Shape, context: RuleContext): Expression {
  const plan = planItems(shape);
  if (plan.min > COUNT_MAX) throw new Refusal(`more than ${COUNT_MAX}, the limit`, "/minItems");
  if (plan.max !== undefined && plan.max < plan.min) return NEVER;
  if (shape.unique && (plan.max ?? 2) > 1) return distinctItems(plan, context);
  return seq(text("["), items(plan, 0, context));
}

/** `contains` as what stands first after the fixed items, or among them where none may follow. */
function planItems(shape: Shape): ItemPlan {
  const first: Schema[] = [...shape.prefix];
  // Fixed items without a word on the rest: none follow, unless there must be more.
  const rest =
    shape.items ??
    (shape.prefix.length > 0 && shape.minItems <= first.length && shape.contains.length === 0
      ? false
      : true);
  let at = rest === false ? 0 : first.length;
  for (const { schema, count } of shape.contains) {
    if (count > COUNT_MAX) throw new Refusal(`more than ${COUNT_MAX}, the limit`, "/minContains");
    for (let i = 0; i < count; i++, at++) first[at] = both(first[at] ?? rest, schema) ?? true;
  }
  const needed = shape.contains.length === 0 ? 0 : at;
  return { first, rest, min: Math.max(shape.minItems, needed), max: shape.maxItems };
}

/** What follows `index` items, with the closing bracket. */
function items(plan: ItemPlan, index: number, context: RuleContext): Expression {
  const { book } = context;
  const fixed = index < plan.first.length;
  const counted = index < plan.min || (plan.max !== undefined && plan.max <= CHAIN);
  const state = fixed || counted || index === 0 ? index : -1;
  const { first, rest, min, max } = plan;
  const key = `items:${state}:${book.idOf(JSON.stringify([first, rest, min, max ?? null]))}`;
  return book.rule(key, () => {
    const end = index === 0 ? text("]") : seq(space(book), text("]"));
    const ways: Expression[] = index >= plan.min ? [end] : [];
    if (index === 0 && plan.min === 0) ways.push(seq(space(book), text("]")));
    if (plan.max !== undefined && index >= plan.max) return alt(...ways);
    const lead = seq(...(index === 0 ? [] : [text(",")]), space(book));
    const value = context.valueOf(plan.first[index] ?? plan.rest);
    if (!fixed && !counted && plan.max !== undefined && index > 0) {
      const more = repeat(seq(lead, value), 0, plan.max - index);
      return seq(more, end);
    }
    const next = seq(lead, value, items(plan, index + 1, context));
    return alt(...ways, next);
  });
}

/** `uniqueItems` over listed values: any of them, in the order of the list. */
function distinctItems(plan: ItemPlan, context: RuleContext): Expression {
  const values = plan.first.length > 0 ? undefined : listed(plan.rest, context);
  if (values === undefined)
    throw new Refusal("is supported for items of an enum, or one item at most", "/uniqueItems");
  const texts = [...new Map(values.map((value) => [canonical(value), value])).values()].map(
    (value) => JSON.stringify(value),
  );
  const max = Math.min(plan.max ?? texts.length, texts.length);
  if (plan.min > texts.length) return NEVER;
  const { book } = context;
  const key = book.idOf(JSON.stringify([texts, plan.min, max]));
  const from = (index: number, count: number): Expression =>
    book.rule(`distinct:${index}:${count}:${key}`, () => {
      const end = seq(count === 0 ? EMPTY : space(book), text("]"));
      const ways: Expression[] = count >= plan.min ? [end] : [];
      if (count < max)
        texts.slice(index).forEach((value, i) => {
          const lead = seq(...(count === 0 ? [] : [text(",")]), space(book));
          ways.push(seq(lead, text(value), from(index + i + 1, count + 1)));
        });
      return ways.length === 0 ? NEVER : alt(...ways);
    });
  return seq(text("["), from(0, 0));
}

/** Values of a schema that lists them along all its ways. */
function listed(schema: Schema, context: RuleContext) {
  const shapes = context.shapes.of(schema);
  if (shapes.length === 0 || shapes.some(({ values }) => values === undefined)) return undefined;
  return shapes
    .flatMap(({ values }) => values ?? [])
    .filter((value) => context.validate(schema, value));
}
