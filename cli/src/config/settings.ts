/** What a command can be told, from its options as commander holds them. */
import { InvalidArgumentError, type Command, type Option } from "commander";

export interface Setting {
  /** The flag without dashes, and without `no-`: as it stands in a file. */
  name: string;
  attribute: string;
  /** TESSERA_… */
  variable: string;
  /** False: on or off. */
  takesValue: boolean;
  /** Besides its value it takes false, as `--no-x`. */
  mayBeOff: boolean;
  /** May be given several times. */
  repeats: boolean;
  mandatory: boolean;
  /** What its help says of the default where that is not the option's own. */
  fallback: string | undefined;
  /** `before`: what it was until now, of those that repeat. @throws InvalidArgumentError */
  parse(text: string, before: unknown): unknown;
}

export const CONFIG_FLAG = "config";
/** How a process is told to end by the one that started it: a flag alone. */
const FLAGS_ALONE = [CONFIG_FLAG, "end-with-stdin"];

export function nameOf(option: Option): string {
  return option.name().replace(option.negate ? /^no-/ : /^$/, "");
}

export function variableOf(name: string): string {
  return `TESSERA_${name.toUpperCase().replaceAll("-", "_")}`;
}

function repeats({ variadic, argChoices, parseArg }: Option): boolean {
  return variadic || (argChoices === undefined && (parseArg?.length ?? 0) > 1);
}

function settingOf(option: Option, mandatory: ReadonlySet<string>): Setting {
  const name = nameOf(option);
  const { parseArg } = option;
  return {
    name,
    attribute: option.attributeName(),
    variable: variableOf(name),
    takesValue: option.required || option.optional,
    mayBeOff: false,
    repeats: repeats(option),
    mandatory: mandatory.has(name),
    fallback: /(?:^|\()(default: .+?)\)?$/.exec(option.description)?.[1],
    parse(text, before) {
      if (parseArg !== undefined) return parseArg(text, before);
      return option.variadic ? [...((before as string[] | undefined) ?? []), text] : text;
    },
  };
}

/** In the order of the options; `--x` and `--no-x` are one. */
export function settingsOf(command: Command, mandatory: ReadonlySet<string>): Setting[] {
  const byName = new Map<string, Setting>();
  for (const option of command.options) {
    const setting = settingOf(option, mandatory);
    if (FLAGS_ALONE.includes(setting.name)) continue;
    const known = byName.get(setting.name);
    const chosen = known === undefined || setting.takesValue ? setting : known;
    const mayBeOff = known !== undefined && known.takesValue !== setting.takesValue;
    byName.set(setting.name, { ...chosen, mayBeOff });
  }
  return [...byName.values()];
}

/** What a parser says of a bad text; other errors go on. */
export function complaint(error: unknown): string {
  if (error instanceof InvalidArgumentError) return error.message.replace(/\.$/, "");
  throw error;
}
