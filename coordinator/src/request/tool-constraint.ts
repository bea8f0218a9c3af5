/** Tools and how they may be used → what an answer must match, as an XGrammar structural tag. */
import type { ConstraintSpec } from "./constraint.js";
import type { PromptTool } from "./tool-prompt.js";

export type ToolChoice =
  | { mode: "none" }
  | { mode: "auto" }
  | { mode: "required" }
  /** Exactly one call, of this tool. */
  | { mode: "named"; name: string };

/** What may stand between two calls. */
const SEPARATOR = "\n";
const TRIGGER = "<tool_call>";
const ANY_OBJECT = { type: "object" };
/** As OpenAI: a tool without parameters takes none. */
const NO_PARAMETERS = { type: "object", properties: {}, additionalProperties: false };

/** The text of a call as the prompt asks for it; its arguments match `schema`. */
function callTag(name: string, schema: object) {
  return {
    type: "tag",
    begin: `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": `,
    content: { type: "json_schema", json_schema: schema },
    end: "}\n</tool_call>",
  };
}

function schemaOf({ parameters }: PromptTool): object {
  return parameters === undefined ? NO_PARAMETERS : { ...parameters, type: "object" };
}

function callsOnly(tools: PromptTool[], parallel: boolean): object {
  return {
    type: "tags_with_separator",
    tags: tools.map((tool) => callTag(tool.name, schemaOf(tool))),
    separator: SEPARATOR,
    at_least_one: true,
    stop_after_first: !parallel,
  };
}

/** The format that stands for an answer's own constraint; a structural tag's is not built in here. */
function formatOf(spec: Exclude<ConstraintSpec, { kind: "structural_tag" }>): object {
  switch (spec.kind) {
    case "json_schema":
      return { type: "json_schema", json_schema: JSON.parse(spec.schema) as unknown };
    case "json_object":
      return { type: "json_schema", json_schema: ANY_OBJECT };
    case "regex":
      return { type: "regex", pattern: spec.pattern };
    case "choice": {
      const elements = spec.texts.map((value) => ({ type: "const_string", value }));
      return { type: "or", elements };
    }
    case "grammar":
      return { type: "grammar", grammar: spec.ebnf };
  }
}

function structuralTag(format: object): ConstraintSpec {
  return { kind: "structural_tag", tag: JSON.stringify({ type: "structural_tag", format }) };
}

/** Calls alone. */
export function requiredCalls(
  tools: PromptTool[],
  choice: Extract<ToolChoice, { mode: "required" | "named" }>,
  parallel: boolean,
): ConstraintSpec {
  if (choice.mode !== "named") return structuralTag(callsOnly(tools, parallel));
  const named = tools.filter(({ name }) => name === choice.name);
  return structuralTag(callsOnly(named, false));
}

/** Text, and calls whose arguments match where their tool is strict. */
export function strictCalls(tools: PromptTool[], parallel: boolean): ConstraintSpec {
  return structuralTag({
    type: "triggered_tags",
    triggers: [TRIGGER],
    tags: tools.map((tool) => callTag(tool.name, tool.strict ? schemaOf(tool) : ANY_OBJECT)),
    at_least_one: false,
    stop_after_first: !parallel,
  });
}

/**
 * An answer that matches, or one call: XGrammar 0.1.27 takes no choice between something of one end and a list of
 * calls, which goes on.
 */
export function answerOrCall(
  answer: Exclude<ConstraintSpec, { kind: "structural_tag" }>,
  tools: PromptTool[],
): ConstraintSpec {
  const calls = tools.map((tool) => callTag(tool.name, schemaOf(tool)));
  return structuralTag({ type: "or", elements: [...calls, formatOf(answer)] });
}
