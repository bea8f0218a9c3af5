/** A `tessera` process started by this one. It ends when this one does: its stdin closes. */
import { spawn, type ChildProcess } from "node:child_process";
import { EventEmitter } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { childEnvironment, environment as processEnvironment } from "./config/config.js";
import type { Announcement } from "./commands/parent.js";

/** Longer than the 3 s that the coordinator takes at most to end streams when it is told to end. */
const STOP_DEADLINE_MS = 10_000;
const BIN = fileURLToPath(new URL("../bin/tessera.js", import.meta.url));

export class Child {
  readonly process: ChildProcess;
  private readonly name: string;
  /** The last of each event. */
  private readonly heard = new Map<string, Announcement>();
  private readonly hearing = new EventEmitter();

  constructor(args: string[], environment: Record<string, string> = {}) {
    this.name = args[0] ?? "";
    const child = spawn(process.execPath, [BIN, ...args, "--end-with-stdin"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: childEnvironment(processEnvironment(), environment),
    });
    this.process = child;
    // What is written to one that has ended is lost; its end is seen by its exit.
    child.stdin.on("error", () => undefined);
    createInterface({ input: child.stdout }).on("line", (line) => {
      const said = JSON.parse(line) as Announcement;
      this.heard.set(said.event, said);
      this.hearing.emit(said.event);
    });
  }

  /** Resolves when the child says or has said `event`. @throws Error at its end, or at the deadline */
  until(event: Announcement["event"], deadlineMs: number): Promise<Announcement> {
    return new Promise((resolve, reject) => {
      const { process: child, hearing } = this;
      const settle = (error?: Error) => {
        clearTimeout(timer);
        hearing.off(event, heard);
        child.off("exit", gone);
        const said = this.heard.get(event);
        if (said !== undefined) resolve(said);
        else if (error !== undefined) reject(error);
      };
      const heard = () => settle();
      const gone = (code: number | null, signal: NodeJS.Signals | null) =>
        settle(new Error(`${this.name}: ended with ${signal ?? code} before it was ${event}`));
      const late = () =>
        settle(new Error(`${this.name}: was not ${event} within ${deadlineMs} ms`));
      const timer = setTimeout(late, deadlineMs);
      hearing.on(event, heard);
      child.on("exit", gone);
      if (this.heard.has(event)) settle();
      else if (this.ended) gone(child.exitCode, child.signalCode);
    });
  }

  get address(): string {
    return this.heard.get("listening")?.address ?? "";
  }
  get health(): string | undefined {
    return this.heard.get("listening")?.health;
  }
  get http(): string | undefined {
    return this.heard.get("listening")?.http;
  }
  private get ended(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  tell(line: string): void {
    this.process.stdin?.write(`${line}\n`);
  }

  kill(): void {
    this.process.kill("SIGKILL");
  }

  async stop(): Promise<void> {
    if (this.ended) return;
    const gone = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGTERM");
    const timer = setTimeout(() => this.kill(), STOP_DEADLINE_MS);
    await gone;
    clearTimeout(timer);
  }
}
