/** Settings from environment variables. */
import type { Setting } from "./settings.js";
import { meant } from "./suggest.js";
import type { Found, Problems } from "./sources.js";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Read by others than the commands: the kernels' kind, the tests' extent. */
const OF_OTHERS = ["TESSERA_CPU", "TESSERA_FULL"];
export const CONFIG_VARIABLE = "TESSERA_CONFIG";
/** The standard's own variables, for settings that it names too. */
const STANDARD: Readonly<Record<string, string>> = {
  "otlp-endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
};

/** What Kubernetes gives every container beside a Service called tessera…: these are not settings. */
function isServiceLink(name: string, text: string): boolean {
  return (
    /_SERVICE_(HOST|PORT)(_|$)/.test(name) ||
    /_PORT_\d+_(TCP|UDP|SCTP)(_|$)/.test(name) ||
    (name.endsWith("_PORT") && /^(tcp|udp|sctp):\/\//.test(text))
  );
}

const SWITCHES: Readonly<Record<string, boolean>> = { true: true, 1: true, false: false, 0: false };

function valueOf(setting: Setting, text: string): Found["value"] | undefined {
  if (setting.mayBeOff && text.toLowerCase() === "false") return false;
  if (setting.takesValue) return [text];
  return SWITCHES[text.toLowerCase()];
}

/** An empty variable is none. `elsewhere`: variables of other commands, with their names. */
export function fromEnvironment(
  environment: Environment,
  settings: readonly Setting[],
  { problems, elsewhere }: { problems: Problems; elsewhere: ReadonlyMap<string, string> },
): Map<string, Found> {
  const found = new Map<string, Found>();
  const take = (setting: Setting, variable: string) => {
    const text = environment[variable] ?? "";
    if (text === "" || isServiceLink(variable, text)) return;
    const value = valueOf(setting, text);
    if (value === undefined)
      problems.add(variable, `${JSON.stringify(text)}: must be true or false`);
    else found.set(setting.name, { value, source: variable });
  };
  for (const setting of settings) {
    const standard = STANDARD[setting.name];
    if (standard !== undefined) take(setting, standard);
    take(setting, setting.variable);
  }
  const known = [...settings.map(({ variable }) => variable), CONFIG_VARIABLE, ...OF_OTHERS];
  for (const [name, text = ""] of Object.entries(environment)) {
    if (!name.startsWith("TESSERA_") || known.includes(name) || text === "") continue;
    if (isServiceLink(name, text)) continue;
    const other = elsewhere.get(name);
    problems.add(name, other === undefined ? `unknown${meant(name, known)}` : `is of ${other}`);
  }
  return found;
}
