/** Which texts a constraint takes whole. */
import type { ConstraintSpec } from "../request/constraint.js";
import type { GrammarEngine } from "./index.js";
import { FIELD, type TestModel } from "./models.fixture.js";
import { accepts } from "./walker.fixture.js";

/** A JSON schema, or its text as it is. */
export function jsonSchema(value: object | string): ConstraintSpec {
  const schema = typeof value === "string" ? value : JSON.stringify(value);
  return { kind: "json_schema", schema };
}

export async function acceptedBy(
  engine: GrammarEngine,
  { tokenizer, stopIds }: TestModel,
  of: { spec: ConstraintSpec; texts: string[] },
): Promise<string[]> {
  const grammar = await engine.compile(of.spec, FIELD);
  const found: string[] = [];
  for (const each of of.texts)
    if (await accepts(grammar, each, { tokenizer, stopIds })) found.push(each);
  grammar.close();
  return found;
}
