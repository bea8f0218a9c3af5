/** Lines from a terminal or a pipe, answers to it. */
import { createInterface, type Interface } from "node:readline";
import { TesseraError } from "@tessera/client";
import { describeAnswer, readPicture, type Conversation } from "./conversation.js";

export interface Streams {
  input: NodeJS.ReadStream;
  output: NodeJS.WriteStream;
  /** What is said beside the answers. */
  notes: NodeJS.WriteStream;
}

const HELP = [
  "/image FILE   shows a picture with the next question",
  "/reset        forgets the conversation",
  "/exit         ends; so does Ctrl-D, and Ctrl-C while nothing is answered",
].join("\n");

/** What could move a terminal's cursor or change its state; a tab and a new line are let be. */
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

export class TerminalChat {
  private readonly lines: Interface;
  private answering: AbortController | undefined;
  private ended = false;

  constructor(
    private readonly conversation: Conversation,
    private readonly streams: Streams,
  ) {
    const { input, output } = streams;
    const terminal = this.interactive;
    this.lines = createInterface({
      input,
      terminal,
      prompt: "> ",
      ...(terminal ? { output } : {}),
    });
    if (terminal) this.lines.on("SIGINT", () => this.interrupt());
  }

  private get interactive(): boolean {
    return this.streams.input.isTTY && this.streams.output.isTTY;
  }

  /** Ctrl-C: ends the answer; without one, or a second time, the program. */
  interrupt(): void {
    const { answering } = this;
    if (answering !== undefined && !answering.signal.aborted) return answering.abort();
    this.ended = true;
    this.lines.close();
  }

  private note(text: string): void {
    this.streams.notes.write(`${text}\n`);
  }

  /** Until the input ends or /exit. @throws what a command or a question of a pipe fails with */
  async run(): Promise<void> {
    if (this.interactive) this.lines.prompt();
    for await (const line of this.lines) {
      try {
        await this.take(line);
      } catch (error) {
        if (!this.interactive) throw error;
        this.note(error instanceof Error ? error.message : String(error));
        if (!(error instanceof TesseraError)) continue;
        this.note("The question is forgotten; the conversation before it stays.");
      } finally {
        if (this.interactive && !this.ended) this.lines.prompt();
      }
      if (this.ended) break;
    }
    this.lines.close();
    if (this.interactive) this.streams.output.write("\n");
  }

  private async take(line: string): Promise<void> {
    const text = line.trim();
    const [command, ...rest] = text.split(/\s+/);
    if (text === "") return;
    if (command === undefined || !text.startsWith("/")) return this.ask(text);
    if (command === "/image") return this.show(rest.join(" "));
    if (command === "/exit") this.ended = true;
    else if (command === "/reset") {
      this.conversation.reset();
      this.note("The conversation is forgotten.");
    } else if (command === "/help") this.note(HELP);
    else throw new Error(`${command}: no such command\n${HELP}`);
  }

  private async show(file: string): Promise<void> {
    if (file === "") throw new Error("/image: give a file");
    this.conversation.attach(await readPicture(file));
    this.note(`${file}: shown with the next question.`);
  }

  private async ask(text: string): Promise<void> {
    const { output } = this.streams;
    const answering = new AbortController();
    this.answering = answering;
    try {
      const answer = await this.conversation.ask(
        text,
        (piece) => output.write(output.isTTY ? piece.replace(CONTROLS, "") : piece),
        answering.signal,
      );
      output.write("\n");
      this.note(describeAnswer(answer));
    } finally {
      this.answering = undefined;
    }
  }
}
