/** The `tessera` command. Each command loads what it needs when it runs. */
import { Command } from "commander";
import { addServe } from "./commands/serve.js";
import { addBatch } from "./commands/batch.js";
import { addLook } from "./commands/look.js";

const program = new Command("tessera")
  .description("Serves the NVLM family of vision-language models from a cluster of workers.")
  .version("0.1.0");
addServe(program);
addBatch(program);
addLook(program);
program.parseAsync().catch((error: unknown) => {
  process.stderr.write(`tessera: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
});
