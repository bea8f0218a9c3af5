/** A command whose settings come from flags, the environment and one file, in this order, checked together. */
import { Option, type Command } from "commander";
import { environment, readConfig } from "./config.js";
import { CONFIG_VARIABLE, fromEnvironment } from "./environment.js";
import { fromFile } from "./file.js";
import { shown } from "./secret.js";
import { complaint, CONFIG_FLAG, nameOf, settingsOf, type Setting } from "./settings.js";
import { Problems, type Found } from "./sources.js";
import { meant } from "./suggest.js";

export interface Configured {
  setting: Setting;
  value: unknown;
  /** `flag`, a variable, file:line, `default`; undefined: not set. */
  source: string | undefined;
}

/** Flags' own problems are kept instead of ending the process at the first. */
function collectFlags(command: Command, problems: Problems): void {
  for (const option of command.options) {
    const { parseArg } = option;
    if (parseArg === undefined) continue;
    option.argParser((text: string, before: unknown): unknown => {
      try {
        return parseArg(text, before);
      } catch (error) {
        const value = JSON.stringify(shown(nameOf(option), text));
        problems.add(`--${option.name()}`, `${value}: ${complaint(error)}`);
        return before;
      }
    });
  }
}

function unknownFlags({ args, options }: Command, problems: Problems): void {
  const names = options.flatMap(({ long }) => long ?? []);
  args.forEach((arg, i) => {
    const [flag = ""] = arg.split("=");
    if (flag.startsWith("-")) problems.add(flag, `unknown${meant(flag, names)}`);
    else if (args[i - 1]?.startsWith("-") !== true) problems.add(arg, "is no flag");
  });
}

async function readFound(
  command: Command,
  settings: Setting[],
  problems: Problems,
): Promise<Map<string, Found>> {
  const flag = command.getOptionValue(CONFIG_FLAG) as string | undefined;
  const variable = environment()[CONFIG_VARIABLE] ?? "";
  const path = flag ?? variable;
  if (path === "") return new Map();
  try {
    return fromFile(await readConfig(path), path, { settings, problems });
  } catch (error) {
    const source = flag === undefined ? CONFIG_VARIABLE : `--${CONFIG_FLAG}`;
    problems.add(source, error instanceof Error ? error.message : String(error));
    return new Map();
  }
}

/** The value, or undefined when its problem was told. */
function parsed(setting: Setting, { value, source }: Found, problems: Problems): unknown {
  if (typeof value === "boolean") return value;
  let result: unknown;
  for (const text of value)
    try {
      result = setting.parse(text, result);
    } catch (error) {
      const named = source.includes(":") ? `${setting.name}: ` : "";
      const said = JSON.stringify(shown(setting.name, text));
      problems.add(source, `${named}${said}: ${complaint(error)}`);
    }
  return result;
}

function variablesOf(commands: readonly Command[]): Map<string, string> {
  const named = new Map<string, string>();
  for (const command of commands)
    for (const { variable } of settingsOf(command, new Set()))
      named.set(variable, [named.get(variable), command.name()].filter(Boolean).join(", "));
  return named;
}

/** Each setting with its value and where it is from; the command's options are set to them. */
async function resolve(
  command: Command,
  { settings, siblings }: { settings: Setting[]; siblings: readonly Command[] },
  problems: Problems,
): Promise<Configured[]> {
  unknownFlags(command, problems);
  const of = { problems, elsewhere: variablesOf(siblings) };
  const environmental = fromEnvironment(environment(), settings, of);
  const filed = await readFound(command, settings, problems);
  return settings.map((setting) => {
    const { name, attribute, mandatory } = setting;
    const from = command.getOptionValueSource(attribute);
    const values = [environmental.get(name), filed.get(name)].map((found) =>
      found === undefined ? undefined : { found, value: parsed(setting, found, problems) },
    );
    const chosen = from === "cli" ? undefined : values.find((each) => each !== undefined);
    if (chosen !== undefined) command.setOptionValueWithSource(attribute, chosen.value, "config");
    const value: unknown = command.getOptionValue(attribute);
    if (mandatory && chosen === undefined && value === undefined)
      problems.add(`--${name}`, "is missing");
    const own = from === "cli" ? "flag" : value === undefined ? undefined : "default";
    return { setting, value, source: chosen?.found.source ?? own };
  });
}

/** Of commands whose settings were found and are right. */
export const CONFIGURED = new WeakMap<Command, Configured[]>();

/** To be called when the command has all its options. `siblings` are configurable too. */
export function configurable(command: Command, siblings: readonly Command[]): void {
  const mandatory = new Set<string>();
  for (const option of command.options) {
    if (option.mandatory) mandatory.add(nameOf(option));
    option.mandatory = false;
  }
  const settings = settingsOf(command, mandatory);
  const problems = new Problems();
  collectFlags(command, problems);
  command
    .addOption(
      new Option(
        "--config <file>",
        "YAML with flags' names and values; flags and TESSERA_<FLAG> come before it",
      ),
    )
    .allowUnknownOption()
    .allowExcessArguments()
    .hook("preAction", async () => {
      const configured = await resolve(command, { settings, siblings }, problems);
      problems.check();
      CONFIGURED.set(command, configured);
    });
}
