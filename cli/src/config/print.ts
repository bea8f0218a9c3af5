/** The effective configuration, as a file that could be given again; what is secret in it is hidden. */
import { stringify } from "yaml";
import type { Configured } from "./configurable.js";
import { shown } from "./secret.js";

function textOf({ setting, value }: Configured): string {
  const hide = (each: unknown) => (typeof each === "string" ? shown(setting.name, each) : each);
  const masked: unknown = Array.isArray(value) ? value.map(hide) : hide(value);
  const options = { lineWidth: 0, blockQuote: false, collectionStyle: "flow" } as const;
  return stringify(masked, options).trimEnd();
}

export function printed(configured: readonly Configured[]): string {
  const lines = configured.map((each) => {
    const { name, fallback } = each.setting;
    if (each.source !== undefined) return `${name}: ${textOf(each)} # ${each.source}\n`;
    return `# ${name}: not set${fallback === undefined ? "" : ` (${fallback})`}\n`;
  });
  return lines.join("");
}
