/** An answer in server-sent events. */
import { once } from "node:events";
import type { FastifyReply } from "fastify";
import type { ServeError } from "@tessera/proto";
import { toHttp } from "./errors.js";

/** For a client to take what is left of an ended stream. */
const END_DEADLINE_MS = 10_000;

/** Nothing is sent before the first event: until then the call can be answered with a status of its own. */
export class EventStream {
  private ended = false;
  private emptied: Promise<void> | undefined;

  constructor(
    private readonly reply: FastifyReply,
    private readonly signal: AbortSignal,
  ) {}

  get begun(): boolean {
    return this.reply.sent;
  }

  private begin(): void {
    if (this.begun) return;
    const headers = this.reply.getHeaders();
    this.reply.hijack();
    const { raw } = this.reply;
    // A connection that breaks is told by the signal.
    raw.on("error", () => undefined);
    for (const [name, value] of Object.entries(headers))
      if (value !== undefined) raw.setHeader(name, value);
    raw.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    });
  }

  private write(text: string): boolean {
    this.begin();
    const { raw } = this.reply;
    // A closed connection takes no more, and does not drain.
    return raw.destroyed || this.ended || raw.write(text);
  }

  /** False: the connection is full, nothing more before `drained`. */
  send(data: object, id?: string): boolean {
    const name = id === undefined ? "" : `id: ${id}\n`;
    return this.write(`${name}data: ${JSON.stringify(data)}\n\n`);
  }

  /** Of a kind that the event's name tells. False as of `send`. */
  sendTyped(data: { type: string }): boolean {
    return this.write(`event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Shared by those who wait. */
  drained(): Promise<void> {
    const end = () => (this.emptied = undefined);
    const { signal } = this;
    this.emptied ??= once(this.reply.raw, "drain", { signal }).then(end, end);
    return this.emptied;
  }

  /** The end of a whole answer. */
  finish(): void {
    this.write("data: [DONE]\n\n");
    this.end();
  }

  /** The last event is the error; nothing says that the answer is whole. */
  fail(error: ServeError): void {
    this.send(toHttp(error).body);
    this.end();
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    const { raw } = this.reply;
    const timer = setTimeout(() => raw.destroy(), END_DEADLINE_MS).unref();
    raw.once("close", () => clearTimeout(timer));
    raw.end();
  }
}
