/** A constraint → what XGrammar compiles. Runs in a thread: patterns and schemas come from outside. */
import type { ConstraintSpec } from "../request/constraint.js";
import { readEbnf } from "./ebnf-source.js";
import { writeGrammar } from "./ebnf-text.js";
import { alt, RuleBook, text, type Expression } from "./expression.js";
import type { GrammarLimits } from "./limits.js";
import { wholeMatch } from "./pattern.js";
import { Refusal } from "./refusal.js";
import { schemaExpression } from "./schema/schema.js";
import { readStructuralTag } from "./structural-tag.js";

export interface CompilerInput {
  kind: "ebnf" | "structural_tag";
  text: string;
  /** Characters beyond ASCII that the answer must not hold; see `ebnf-text.ts`. */
  forbidden: number[];
}

/** @throws Refusal on what is wrong, not supported, or beyond a limit. */
export function readConstraint(spec: ConstraintSpec, limits: GrammarLimits): CompilerInput {
  const book = new RuleBook(limits.rules);
  switch (spec.kind) {
    case "json_schema":
      return written(schemaExpression(spec.schema, limits, book), book.rules);
    case "json_object":
      return written(schemaExpression('{"type":"object"}', limits, book), book.rules);
    case "regex":
      return written(wholeMatch(spec.pattern), []);
    case "choice":
      return written(choice(spec.texts, limits.choices), []);
    case "grammar": {
      const { root, rules } = readEbnf(spec.ebnf, limits.rules);
      return written(root, rules);
    }
    case "structural_tag": {
      const { tag, forbidden } = readStructuralTag(spec.tag, limits);
      return { kind: "structural_tag", text: tag, forbidden };
    }
  }
}

function written(root: Expression, rules: readonly Expression[]): CompilerInput {
  const { ebnf, forbidden } = writeGrammar(root, rules);
  return { kind: "ebnf", text: ebnf, forbidden };
}

function choice(texts: readonly string[], countMax: number): Expression {
  if (texts.length === 0) throw new Refusal("at least one text is needed");
  if (texts.length > countMax) throw new Refusal(`${texts.length} texts, at most ${countMax}`);
  texts.forEach((each, i) => {
    if (!each.isWellFormed()) throw new Refusal("holds half of a surrogate pair", `[${i}]`);
  });
  return alt(...[...new Set(texts)].map(text));
}

/** UTF-8 bytes of what came from outside. */
export function sourceBytes(spec: ConstraintSpec): number {
  switch (spec.kind) {
    case "json_schema":
      return Buffer.byteLength(spec.schema);
    case "json_object":
      return 0;
    case "regex":
      return Buffer.byteLength(spec.pattern);
    case "choice":
      return spec.texts.reduce((sum, each) => sum + Buffer.byteLength(each), 0);
    case "grammar":
      return Buffer.byteLength(spec.ebnf);
    case "structural_tag":
      return Buffer.byteLength(spec.tag);
  }
}
