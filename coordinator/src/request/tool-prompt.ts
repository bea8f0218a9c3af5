/**
 * Tools, calls and results in the wording of Qwen2.5's chat template: tools at the end of the system turn, a call as
 * JSON between tags, results in a user's turn. What is written here is text of turns; `prompt.ts` joins them.
 */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { SpelledTurn, Turn, TurnPart } from "./prompt.js";

export const TOOL_NAME = /^[a-zA-Z0-9_-]{1,64}$/;

export interface PromptTool {
  name: string;
  /** Empty: none. */
  description: string;
  parameters: JsonObject | undefined;
  /** Not shown; see `tool-constraint.ts`. */
  strict: boolean;
}

/** A call that the assistant made. */
export interface PromptCall {
  name: string;
  /** JSON text of an object; empty: no arguments. */
  arguments: string;
}

const HEAD =
  "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n" +
  "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
const TAIL =
  "\n</tools>\n\nFor each function call, return a json object with function name and arguments " +
  "within <tool_call></tool_call> XML tags:\n<tool_call>\n" +
  '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>';

/** As Python's repr: an exponent below 10⁻⁴ and from 10¹⁶ on, of two digits at least; a point in any case. */
function float(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e16 || (size < 1e-4 && size > 0)) {
    const [digits = "", sign = "", exponent = ""] = value.toExponential().split(/e([+-])/);
    return `${digits}e${sign}${exponent.padStart(2, "0")}`;
  }
  const text = Object.is(value, -0) ? "-0" : String(value);
  return Number.isInteger(value) ? `${text}.0` : text;
}

/** A double says no more of 1 and 1.0: both are 1. */
function number(value: number): string {
  return Number.isSafeInteger(value) ? String(value) : float(value);
}

/** As the template's `tojson`, which is Python's `json.dumps` without escapes of what is not ASCII. */
export function pythonJson(value: JsonValue): string {
  if (typeof value === "number") return number(value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(", ")}]`;
  const entries = Object.entries(value);
  return `{${entries.map(([key, v]) => `${JSON.stringify(key)}: ${pythonJson(v)}`).join(", ")}}`;
}

const JSON_TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
const SPACED: Record<string, string> = { ",": ", ", ":": ": " };

function respacedToken(token: string): string {
  if (token.startsWith('"')) return JSON.stringify(JSON.parse(token));
  if (/^-?\d+$/.test(token) || !/^[-\d]/.test(token)) return SPACED[token] ?? token;
  return float(Number(token));
}

/** JSON text as `tojson` writes what it says; whole numbers of any size are kept. */
export function respaced(json: string): string {
  return (json.match(JSON_TOKEN) ?? []).map(respacedToken).join("");
}

/** A tool as the prompt has it, on a line of its own. */
export function toolLine({ name, description, parameters }: PromptTool): string {
  const body: JsonObject = {
    name,
    ...(description === "" ? {} : { description }),
    ...(parameters === undefined ? {} : { parameters }),
  };
  return pythonJson({ type: "function", function: body });
}

const TAG = /(<\/?(?:tool_call|tool_response|tools)>)/;

/** The template's own words: its tags are the tokenizer's added tokens where it has such. */
function own(text: string): TurnPart[] {
  const pieces = text.split(TAG).filter((piece) => piece !== "");
  return pieces.map((piece) => ({ kind: TAG.test(piece) ? "tag" : "text", text: piece }));
}

function isEmpty(parts: TurnPart[]): boolean {
  return parts.every((part) => part.kind === "text" && part.text === "");
}

/** `gap`: between them and the system turn's text. */
function toolsParts(tools: PromptTool[], gap: string): TurnPart[] {
  const lines = tools.map((tool) => `\n${toolLine(tool)}`).join("");
  return [...own(`${gap}${HEAD}`), { kind: "text", text: lines }, ...own(TAIL)];
}

function callParts({ name, arguments: text }: PromptCall): TurnPart[] {
  const json = text.trim() === "" ? "{}" : respaced(text);
  const body = `\n{"name": "${name}", "arguments": ${json}}\n`;
  return [...own("<tool_call>"), { kind: "text", text: body }, ...own("</tool_call>")];
}

function assistantParts({ parts, calls = [] }: Turn): TurnPart[] {
  const spelled = calls.flatMap((call, i): TurnPart[] => {
    const gap = i > 0 || !isEmpty(parts) ? "\n" : "";
    return [{ kind: "text", text: gap }, ...callParts(call)];
  });
  return [...parts, ...spelled];
}

/** Results one after another are one turn. */
function resultParts(results: Turn[]): TurnPart[] {
  return results.flatMap(({ parts }, i) => [
    ...own(`${i > 0 ? "\n" : ""}<tool_response>\n`),
    ...parts,
    ...own("\n</tool_response>"),
  ]);
}

/** → turns of one text each. `system`: of a system turn where there is none; undefined: none is made but for tools. */
export function spellTurns(
  turns: Turn[],
  tools: PromptTool[],
  system: string | undefined,
): SpelledTurn[] {
  const given = turns[0]?.role === "system" ? turns[0] : undefined;
  const made: TurnPart[] | undefined =
    system === undefined ? undefined : [{ kind: "text", text: system }];
  const head = given?.parts ?? made;
  const gap = head === undefined ? "" : "\n\n";
  const shown = tools.length === 0 ? [] : toolsParts(tools, gap);
  const first: SpelledTurn = { role: "system", parts: [...(head ?? []), ...shown] };
  const rest = spellRest(given === undefined ? turns : turns.slice(1));
  return head === undefined && tools.length === 0 ? rest : [first, ...rest];
}

function spellRest(turns: Turn[]): SpelledTurn[] {
  const spelled: SpelledTurn[] = [];
  let results: Turn[] = [];
  const flush = () => {
    if (results.length > 0) spelled.push({ role: "user", parts: resultParts(results) });
    results = [];
  };
  for (const turn of turns) {
    if (turn.role === "tool") {
      results.push(turn);
      continue;
    }
    flush();
    const parts = turn.role === "assistant" ? assistantParts(turn) : turn.parts;
    spelled.push({ role: turn.role, parts });
  }
  flush();
  return spelled;
}
