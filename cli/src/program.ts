/** The `tessera` command line. Each command loads what it needs when it runs. */
import { Command } from "commander";
import { addBatch } from "./commands/batch.js";
import { addChat } from "./commands/chat.js";
import { addDoctor } from "./commands/doctor.js";
import { addLook } from "./commands/look.js";
import { addServe } from "./commands/serve.js";

export function createProgram(): Command {
  const program = new Command("tessera")
    .description("Serves the NVLM family of vision-language models from a cluster of workers.")
    .version("0.1.0");
  addServe(program);
  addChat(program);
  addBatch(program);
  addLook(program);
  addDoctor(program);
  return program;
}
