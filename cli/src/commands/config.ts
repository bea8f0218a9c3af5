/** tessera config: what a command would be told. */
import type { Command } from "commander";
import { CONFIGURED } from "../config/configurable.js";
import { ConfigurationError } from "../config/sources.js";
import { meant } from "../config/suggest.js";

export const CONFIGURABLE = ["up", "coordinator", "worker"];
const DEFAULT_COMMAND = "up";

interface ConfigFlags {
  print?: boolean;
}

async function runConfig(flags: ConfigFlags, args: string[], program: Command): Promise<void> {
  const named = args[0] !== undefined && !args[0].startsWith("-");
  const name = named ? args[0] : DEFAULT_COMMAND;
  const command = program.commands.find(
    (each) => each.name() === name && CONFIGURABLE.includes(name),
  );
  if (command === undefined)
    throw new ConfigurationError([`${name}: no such command${meant(name ?? "", CONFIGURABLE)}`]);
  const { printed } = await import("../config/print.js");
  command.action(() => {
    const text = flags.print === true ? printed(CONFIGURED.get(command) ?? []) : "ok\n";
    process.stdout.write(text);
  });
  await program.parseAsync([command.name(), ...args.slice(named ? 1 : 0)], { from: "user" });
}

/** `create` makes the program anew, whose commands are asked instead of run. */
export function addConfig(program: Command, create: () => Command): void {
  program
    .command("config")
    .description("checks what up, coordinator or worker would be told by flags, environment, file")
    .argument("[command]", `${CONFIGURABLE.join(", ")} (default: ${DEFAULT_COMMAND})`)
    .argument("[flags...]", "of that command")
    .option("--print", "shows it as YAML, each value with its source; secrets are hidden")
    .allowUnknownOption()
    .addHelpText(
      "after",
      `
Example:
  TESSERA_MODEL=models/nvlm-d-tiny tessera config --print up

Flags of the command stand behind its name (docs/configuration.md).
`,
    )
    .action((_command: unknown, _flags: unknown, flags: ConfigFlags, self: Command) =>
      runConfig(flags, self.args, create()),
    );
}
