/** Settings from a YAML file: flags' names without dashes, and their values. */
import { isMap, isScalar, isSeq, LineCounter, parseDocument, type Scalar } from "yaml";
import type { Setting } from "./settings.js";
import type { Found, Problems } from "./sources.js";
import { meant } from "./suggest.js";

interface Place {
  setting: Setting;
  /** file:line */
  source: string;
}

/** As it is written: `1.10` stays that. */
function textOf({ value, source }: Scalar): string | undefined {
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "bigint"
    ? (source ?? String(value))
    : undefined;
}

function listOf(nodes: unknown[]): string[] | undefined {
  const texts = nodes.map((node) => (isScalar(node) ? textOf(node) : undefined));
  return texts.every((text) => text !== undefined) ? texts : undefined;
}

function valueOf(node: unknown, { setting, source }: Place, problems: Problems) {
  const refuse = (what: string) => problems.add(source, `${setting.name}: ${what}`);
  if (!setting.takesValue) {
    if (isScalar(node) && typeof node.value === "boolean") return node.value;
    return refuse("must be true or false");
  }
  if (setting.mayBeOff && isScalar(node) && node.value === false) return false;
  const list = isSeq(node) && setting.repeats ? node.items : [node];
  const texts = listOf(list);
  if (texts !== undefined) return texts;
  return refuse(`must be a text or a number${setting.repeats ? ", or a list of them" : ""}`);
}

/** `path` names the file in sources. */
export function fromFile(
  text: string,
  path: string,
  { settings, problems }: { settings: readonly Setting[]; problems: Problems },
): Map<string, Found> {
  const found = new Map<string, Found>();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const placeOf = (offset: number) => `${path}:${lines.linePos(offset).line}`;
  for (const { message, pos } of [...document.errors, ...document.warnings])
    problems.add(placeOf(pos[0]), message);
  if (document.errors.length > 0 || document.contents === null) return found;
  if (!isMap(document.contents)) {
    problems.add(`${path}:1`, "must be names and values, as max-requests: 64");
    return found;
  }
  for (const { key, value: node } of document.contents.items) {
    const name = isScalar(key) ? String(key.value) : "?";
    const source = placeOf(isScalar(key) ? (key.range?.[0] ?? 0) : 0);
    const setting = settings.find((each) => each.name === name);
    if (setting === undefined) {
      const names = settings.map((each) => each.name);
      problems.add(source, `${name}: unknown${meant(name, names)}`);
      continue;
    }
    const value = valueOf(node, { setting, source }, problems);
    if (value !== undefined) found.set(name, { value, source });
  }
  return found;
}
