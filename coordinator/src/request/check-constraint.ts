/** Constraint → what an answer must match. Sizes and shape alone; whether it compiles is the compiler's. */
import type { Constraint, GenerateRequest } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { checkEntries, checkLength, type Check, type CheckContext } from "./check-context.js";
import type { ConstraintSpec } from "./constraint.js";

/** A spec and the request's field that asks for it. */
export interface NamedConstraint {
  spec: ConstraintSpec;
  field: string;
}

/** False when there is nothing of it, or too much: it is not read then. */
function checkSource(check: Check, field: string, source: string, context: CheckContext): boolean {
  const { maxConstraintBytes: limit } = context.limits;
  const bytes = Buffer.byteLength(source, "utf8");
  const fits = bytes >= 1 && bytes <= limit;
  if (!fits) check.fail(field, `has ${bytes} bytes, must have 1…${limit}`);
  return fits;
}

/** `orFlag`: true and false are schemas too. */
function checkJson(check: Check, field: string, source: string, orFlag: boolean): void {
  try {
    const json: unknown = JSON.parse(source);
    const object = typeof json === "object" && json !== null && !Array.isArray(json);
    if (!object && !(orFlag && typeof json === "boolean"))
      check.fail(field, `is JSON of another kind, must be an object`);
  } catch (error) {
    check.fail(field, `is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function checkChoices(check: Check, field: string, texts: string[], context: CheckContext): void {
  const { maxConstraintChoices, maxConstraintChoiceLength } = context.limits;
  if (texts.length === 0) check.fail(field, `has 0 texts, must have 1…${maxConstraintChoices}`);
  if (!checkEntries(check, field, texts.length, maxConstraintChoices)) return;
  texts.forEach((text, i) => checkLength(check, `${field}[${i}]`, text, maxConstraintChoiceLength));
}

function specOf(
  check: Check,
  { kind }: Constraint,
  context: CheckContext,
): NamedConstraint | undefined {
  const field = `constraint.${kind.case === "jsonSchema" ? "json_schema" : kind.case}`;
  switch (kind.case) {
    case "jsonSchema":
      if (checkSource(check, field, kind.value, context)) checkJson(check, field, kind.value, true);
      return { field, spec: { kind: "json_schema", schema: kind.value } };
    case "jsonObject":
      if (!kind.value) check.fail("constraint.json_object", "is false, must be true");
      return { field: "constraint.json_object", spec: { kind: "json_object" } };
    case "regex":
      checkSource(check, field, kind.value, context);
      return { field, spec: { kind: "regex", pattern: kind.value } };
    case "choice": {
      const { texts } = kind.value;
      checkChoices(check, "constraint.choice.texts", texts, context);
      return { field: "constraint.choice", spec: { kind: "choice", texts: [...texts] } };
    }
    case "grammar":
      checkSource(check, field, kind.value, context);
      return { field, spec: { kind: "grammar", ebnf: kind.value } };
    case "structuralTag": {
      const at = "constraint.structural_tag";
      if (checkSource(check, at, kind.value, context)) checkJson(check, at, kind.value, false);
      return { field: at, spec: { kind: "structural_tag", tag: kind.value } };
    }
    case undefined:
      check.fail("constraint", "is empty");
      return undefined;
  }
}

export function checkConstraint(
  check: Check,
  request: GenerateRequest,
  context: CheckContext,
): NamedConstraint | undefined {
  return request.constraint === undefined ? undefined : specOf(check, request.constraint, context);
}
