/** tessera chat: a conversation in the terminal. */
import type { Command } from "commander";
import { TesseraClient, TesseraError } from "@tessera/client";
import {
  Conversation,
  describeAnswer,
  readPicture,
  type ChatSettings,
} from "../chat/conversation.js";
import { TerminalChat } from "../chat/terminal.js";
import { checkCluster } from "./check-cluster.js";
import { addClientSecurity, clientSecurity, type ClientSecurityFlags } from "./security-flags.js";
import { addPlacement, whole, type PlacementFlags, refuseBesideServer } from "./options.js";

interface ChatFlags extends PlacementFlags, ChatSettings, ClientSecurityFlags {
  model?: string;
  workers: number;
  threads?: number;
  server?: string;
  image?: string[];
  prompt?: string;
  json?: boolean;
}

const CONNECT_DEADLINE_MS = 10_000;

function decimal(text: string): number {
  return text.trim() === "" ? NaN : Number(text);
}

/** The served model's name. @throws Error naming the server when it is not reached. */
async function greet(client: TesseraClient, address: string, plain: boolean): Promise<string> {
  try {
    return (await client.getModel({ deadlineMs: CONNECT_DEADLINE_MS })).name;
  } catch (error) {
    const { code, message } = TesseraError.from(error);
    if (code !== "TRANSPORT" && code !== "DEADLINE") throw error;
    // What a server that waits for TLS does to plain text.
    const cut = plain && /Failed to connect/.test(message);
    const hint = cut ? "; in plain text: a server with certificates needs --tls or --tls-ca" : "";
    throw new Error(`${address} is not reached: ${message}${hint}`, { cause: error });
  }
}

/** One question; stdout has the answer alone. */
async function answerOnce(conversation: Conversation, flags: ChatFlags): Promise<void> {
  const abort = new AbortController();
  process.once("SIGINT", () => abort.abort());
  const show = (piece: string) => void (flags.json === true || process.stdout.write(piece));
  const answer = await conversation.ask(flags.prompt ?? "", show, abort.signal);
  process.stdout.write(flags.json === true ? `${JSON.stringify(answer)}\n` : "\n");
  process.stderr.write(`${describeAnswer(answer)}\n`);
  if (answer.aborted) process.exitCode = 1;
}

async function talk(conversation: Conversation, name: string): Promise<void> {
  const { stdin: input, stdout: output, stderr: notes } = process;
  const chat = new TerminalChat(conversation, { input, output, notes });
  process.on("SIGINT", () => chat.interrupt());
  if (input.isTTY) notes.write(`${name}. /image FILE, /reset, /exit, /help.\n`);
  await chat.run();
}

/** A cluster for this conversation, which Ctrl-C ends while it starts. */
async function ownCluster(model: string, flags: ChatFlags) {
  const { startCluster } = await import("../supervisor.js");
  const { workers, threads } = flags;
  await checkCluster(model, workers, flags);
  if (process.stderr.isTTY) process.stderr.write("starting a cluster …\n");
  return startCluster({ model, workers, threads, port: 0, flags });
}

async function runChat(flags: ChatFlags): Promise<void> {
  const { model, server } = flags;
  if ((server === undefined) === (model === undefined))
    throw new Error("chat: give --model or --server");
  const security = clientSecurity(flags);
  const pictures: Uint8Array[] = [];
  for (const file of flags.image ?? []) pictures.push(await readPicture(file));
  const cluster = model === undefined ? undefined : await ownCluster(model, flags);
  const address = server ?? cluster?.address ?? "";
  const client = new TesseraClient({ addresses: [address], ...security });
  try {
    const name = await greet(client, address, security.tls === undefined);
    const conversation = new Conversation(client, flags);
    for (const picture of pictures) conversation.attach(picture);
    if (flags.prompt === undefined) await talk(conversation, name);
    else await answerOnce(conversation, flags);
  } finally {
    client.close();
    await cluster?.stop();
  }
}

export function addChat(program: Command): void {
  const chat = program
    .command("chat")
    .description("a conversation in the terminal, or one answer with --prompt")
    .option("--server <host:port>", "a running coordinator")
    .option("--model <dir>", "starts a cluster for this conversation instead")
    .option("--workers <count>", "of that cluster: 1, 2, 4 or 8", whole, 1)
    .option("--threads <count>", "of each worker", whole)
    .option(
      "--image <file>",
      "shown with the first question; may be given several times",
      (file: string, before?: string[]) => [...(before ?? []), file],
    )
    .option("--prompt <text>", "one question; stdout has the answer alone")
    .option("--json", "with --prompt: one line of JSON")
    .option("--system <text>", "the system message")
    .option("--max-tokens <count>", "of an answer (default: what the context leaves)", whole)
    .option("--temperature <number>", "0: always the likeliest token (default: 0)", decimal);
  addPlacement(addClientSecurity(chat))
    .addHelpText(
      "after",
      [
        "\nExamples:",
        "  tessera chat --model models/nvlm-d-tiny",
        '  tessera chat --server 127.0.0.1:4000 --image page.png --prompt "What is the total?"\n',
      ].join("\n"),
    )
    .action(async (flags: ChatFlags, of: Command) => {
      refuseBesideServer(flags, of);
      if (flags.json === true && flags.prompt === undefined)
        throw new Error("chat: --json needs --prompt");
      await runChat(flags);
    });
}
