/** Tools, tool_choice and constraint → what the prompt shows, what is looked for, and what an answer must match. */
import {
  ToolMode,
  type GenerateRequest,
  type Tool,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { checkEntries, quote, type Check, type CheckContext } from "./check-context.js";
import { checkConstraint, type NamedConstraint } from "./check-constraint.js";
import { answerOrCall, requiredCalls, strictCalls, type ToolChoice } from "./tool-constraint.js";
import { TOOL_NAME, toolLine, type PromptTool } from "./tool-prompt.js";
import type { ToolUse } from "./types.js";

const MODES: Partial<Record<ToolMode, "auto" | "none" | "required">> = {
  [ToolMode.UNSPECIFIED]: "auto",
  [ToolMode.AUTO]: "auto",
  [ToolMode.NONE]: "none",
  [ToolMode.REQUIRED]: "required",
};

export interface CheckedTools {
  /** Empty when none may be called. */
  shown: PromptTool[];
  tools: ToolUse | undefined;
  constraint: NamedConstraint["spec"] | undefined;
  constraintField: string;
}

/** Whether `value` has no more than `left` objects and lists inside one another. */
function fitsDepth(value: unknown, left: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return left > 0 && Object.values(value).every((part) => fitsDepth(part, left - 1));
}

function checkParameters(check: Check, tool: Tool, field: string, context: CheckContext): boolean {
  const { parameters } = tool;
  if (parameters === undefined) return true;
  const { maxToolDepth } = context.limits;
  const type = parameters["type"];
  if (type !== undefined && type !== "object")
    check.fail(`${field}.type`, `is ${quote(JSON.stringify(type))}, must be "object"`);
  const fits = fitsDepth(parameters, maxToolDepth);
  if (!fits) check.fail(field, `are nested deeper than ${maxToolDepth}`);
  return fits;
}

function checkList(check: Check, from: Tool[], context: CheckContext): PromptTool[] {
  const { maxTools, maxToolBytes } = context.limits;
  if (!checkEntries(check, "tools", from.length, maxTools)) return [];
  const names = new Set<string>();
  let whole = true;
  const tools = from.map((tool, i): PromptTool => {
    const { name, description, parameters, strict } = tool;
    const field = `tools[${i}]`;
    if (!TOOL_NAME.test(name))
      check.fail(`${field}.name`, `is ${quote(name)}, must be 1…64 of a-z A-Z 0-9 _ -`);
    else if (names.has(name))
      check.fail(`${field}.name`, `is ${quote(name)}, which is there twice`);
    names.add(name);
    whole = checkParameters(check, tool, `${field}.parameters`, context) && whole;
    return { name, description, parameters, strict: strict === true };
  });
  if (!whole) return [];
  const bytes = tools.reduce((sum, tool) => sum + Buffer.byteLength(toolLine(tool), "utf8"), 0);
  if (bytes > maxToolBytes) check.fail("tools", `have ${bytes} bytes, limit ${maxToolBytes}`);
  return tools;
}

function checkChoice(check: Check, request: GenerateRequest): ToolChoice {
  const { tools, toolChoice } = request;
  const kind = toolChoice?.kind;
  if (kind?.case === "name") {
    const name = kind.value;
    if (!tools.some((tool) => tool.name === name))
      check.fail("tool_choice", `is ${quote(name)}, which is none of the ${tools.length} tools`);
    return { mode: "named", name };
  }
  const value = kind?.case === "mode" ? kind.value : ToolMode.UNSPECIFIED;
  const mode = MODES[value];
  if (mode === undefined)
    check.fail("tool_choice", `is ${value}, must be auto, none, required or a tool's name`);
  if (mode === "required" && tools.length === 0)
    check.fail("tool_choice", "is required, and there are no tools");
  return { mode: tools.length === 0 ? "none" : (mode ?? "auto") };
}

/** What the tools make of the request's own constraint. */
function join(
  check: Check,
  own: NamedConstraint | undefined,
  of: { tools: PromptTool[]; choice: ToolChoice; parallel: boolean },
): NamedConstraint | undefined {
  const { tools, choice, parallel } = of;
  if (choice.mode === "none") return own;
  if (choice.mode === "required" || choice.mode === "named") {
    if (own !== undefined)
      check.fail(own.field, "is given beside a tool_choice that lets calls alone be the answer");
    return { spec: requiredCalls(tools, choice, parallel), field: "tools" };
  }
  const strict = tools.some((tool) => tool.strict);
  if (own === undefined)
    return strict ? { spec: strictCalls(tools, parallel), field: "tools" } : undefined;
  if (own.spec.kind === "structural_tag") {
    check.fail(own.field, "is given beside tools; tool_choice must be none");
    return own;
  }
  return { spec: answerOrCall(own.spec, tools), field: own.field };
}

export function checkTools(
  check: Check,
  request: GenerateRequest,
  context: CheckContext,
): CheckedTools {
  const before = check.violations.length;
  const own = checkConstraint(check, request, context);
  const listed = checkList(check, request.tools, context);
  const choice = checkChoice(check, request);
  if (request.tools.length > 0 && request.tokenIds.length > 0)
    check.fail("tools", "are given beside token_ids, which are the whole prompt");
  const parallel = request.parallelToolCalls ?? true;
  // A constraint that is wrong may be no JSON: nothing is built of it.
  const sound = check.violations.length === before;
  const joined = sound ? join(check, own, { tools: listed, choice, parallel }) : undefined;
  if (joined !== undefined && request.stop?.ignoreEos === true)
    check.fail(
      "stop.ignore_eos",
      `is true beside ${joined.field}, which says where an answer ends`,
    );
  const use =
    choice.mode === "none" ? undefined : { parallel: parallel && choice.mode !== "named" };
  return {
    shown: choice.mode === "none" ? [] : listed,
    tools: use,
    constraint: joined?.spec,
    constraintField: joined?.field ?? "",
  };
}
