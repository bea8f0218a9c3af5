/** tessera doctor: what this machine offers. */
import type { Command } from "commander";
import { whole } from "./options.js";

interface DoctorFlags {
  port?: number[];
  json?: boolean;
}

const DEFAULT_PORTS = [4000];

async function runDoctor(flags: DoctorFlags): Promise<void> {
  const { examine } = await import("../doctor/examine.js");
  const { describeFacts } = await import("../doctor/facts.js");
  const { cpuKind } = await import("@tessera/shard-worker");
  const facts = await examine({
    cpuKind,
    ports: flags.port ?? DEFAULT_PORTS,
    path: process.env["PATH"] ?? "",
    nodeVersion: process.version,
    forcedCpu: process.env["TESSERA_CPU"],
  });
  const good = facts.every(({ state }) => state !== "missing");
  const json = `${JSON.stringify({ ok: good, facts })}\n`;
  process.stdout.write(flags.json === true ? json : describeFacts(facts));
  if (!good) process.exitCode = 1;
}

export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("what this machine offers; exit 1 when something needed is missing")
    .option(
      "--port <port>",
      "whether it is free; may be given several times (default: 4000)",
      (text: string, before?: number[]) => [...(before ?? []), whole(text)],
    )
    .option("--json", "one line of JSON")
    .addHelpText("after", "\nExample:\n  tessera doctor --port 4000 --port 9464 --json\n")
    .action(runDoctor);
}
