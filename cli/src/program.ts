/** The `tessera` command line. Each command loads what it needs when it runs. */
import { Command } from "commander";
import { addBatch } from "./commands/batch.js";
import { addBench } from "./commands/bench.js";
import { addCerts } from "./commands/certs.js";
import { addChat } from "./commands/chat.js";
import { addConfig, CONFIGURABLE } from "./commands/config.js";
import { addDoctor } from "./commands/doctor.js";
import { addKeys } from "./commands/keys.js";
import { addPlan } from "./commands/plan.js";
import { addProfile } from "./commands/profile.js";
import { addScore } from "./commands/score.js";
import { addServe } from "./commands/serve.js";
import { addTiles } from "./commands/tiles.js";
import { addTokenize } from "./commands/tokenize.js";
import { configurable } from "./config/configurable.js";

export function createProgram(): Command {
  const program = new Command("tessera")
    .description("Serves the NVLM family of vision-language models from a cluster of workers.")
    .version("0.1.0");
  addServe(program);
  addChat(program);
  addBatch(program);
  addScore(program);
  addBench(program);
  addTokenize(program);
  addTiles(program);
  addPlan(program);
  addProfile(program);
  addDoctor(program);
  addKeys(program);
  addCerts(program);
  addConfig(program, createProgram);
  const servers = program.commands.filter((command) => CONFIGURABLE.includes(command.name()));
  for (const server of servers) configurable(server, servers);
  return program;
}
