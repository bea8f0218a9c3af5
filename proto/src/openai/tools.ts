/** OpenAI's tools and tool_choice → ours. */
import { ServeError } from "../errors.js";
import { ToolMode } from "../gen/tessera/v1/inference_pb.js";
import { asJsonObject, asList, asObject, asText, defined, oneOf, quote } from "./fields.js";

const MODES: Record<string, ToolMode> = {
  auto: ToolMode.AUTO,
  none: ToolMode.NONE,
  required: ToolMode.REQUIRED,
};

function tool(value: unknown, field: string) {
  const json = asObject(value, field);
  oneOf(json["type"], ["function"], `${field}.type`);
  const at = `${field}.function`;
  const body = asObject(json["function"], at);
  const { description, parameters, strict } = body;
  const none = (part: unknown) => part === undefined || part === null;
  if (!none(strict) && typeof strict !== "boolean")
    throw ServeError.field(`${at}.strict`, `is ${quote(strict)}, must be true or false`);
  return defined({
    name: asText(body["name"], `${at}.name`),
    description: none(description) ? "" : asText(description, `${at}.description`),
    parameters: none(parameters) ? undefined : asJsonObject(parameters, `${at}.parameters`),
    strict: typeof strict === "boolean" ? strict : undefined,
  });
}

export function tools(value: unknown) {
  if (value === undefined || value === null) return undefined;
  return asList(value, "tools").map((one, i) => tool(one, `tools[${i}]`));
}

export function toolChoice(value: unknown) {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "object") {
    const json = asObject(value, "tool_choice");
    oneOf(json["type"], ["function"], "tool_choice.type");
    const { name } = asObject(json["function"], "tool_choice.function");
    const text = asText(name, "tool_choice.function.name");
    return { kind: { case: "name" as const, value: text } };
  }
  const mode = typeof value === "string" && Object.hasOwn(MODES, value) ? MODES[value] : undefined;
  if (mode === undefined)
    throw ServeError.field(
      "tool_choice",
      `is ${quote(value)}, must be none, auto, required or an object that names a function`,
    );
  return { kind: { case: "mode" as const, value: mode } };
}
