/** A TCP proxy before a gRPC front that cuts connections at a chosen event of the streams they carry. */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

const FRAME_HEAD = 9;
const MESSAGE_HEAD = 5;
/** Types of HTTP/2 frames. */
const DATA = 0;
const HEADERS = 1;

/**
 * What happens to a connection: `refused` at once; `answered`: cut when the server's answer begins, none of which comes
 * through; or cut behind so many messages of it.
 */
export type Cut = "refused" | "answered" | number;

/** Finds where the n-th gRPC message of a server's HTTP/2 bytes ends. One answer at a time; frames without padding. */
class MessageCounter {
  private head = Buffer.alloc(0);
  private type = 0;
  private frameLeft = 0;
  private prefix = Buffer.alloc(0);
  private messageLeft = 0;

  constructor(private readonly cut: Cut) {}
  private count = 0;

  /** → how many of `bytes` may pass before the cut; undefined: all. */
  take(bytes: Buffer): number | undefined {
    let at = 0;
    while (at < bytes.length) {
      if (this.frameLeft === 0) {
        const part = bytes.subarray(at, at + FRAME_HEAD - this.head.length);
        this.head = Buffer.concat([this.head, part]);
        at += part.length;
        if (this.head.length < FRAME_HEAD) return undefined;
        this.frameLeft = this.head.readUIntBE(0, 3);
        this.type = this.head.readUInt8(3);
        this.head = Buffer.alloc(0);
        // The head's first bytes may have come, and gone, before these.
        if (this.cut === "answered" && this.type === HEADERS) return Math.max(0, at - FRAME_HEAD);
        continue;
      }
      const step = bytes.subarray(at, at + this.frameLeft);
      const used = this.type === DATA ? this.message(step) : step.length;
      this.frameLeft -= used;
      at += used;
      if (this.count === this.cut) return at;
    }
    return undefined;
  }

  /** Takes at most to the end of one message. */
  private message(bytes: Buffer): number {
    let used = 0;
    if (this.messageLeft === 0) {
      const part = bytes.subarray(0, MESSAGE_HEAD - this.prefix.length);
      this.prefix = Buffer.concat([this.prefix, part]);
      used = part.length;
      if (this.prefix.length < MESSAGE_HEAD) return used;
      this.messageLeft = this.prefix.readUInt32BE(1);
      this.prefix = Buffer.alloc(0);
    }
    const body = Math.min(this.messageLeft, bytes.length - used);
    this.messageLeft -= body;
    if (this.messageLeft === 0) this.count++;
    return used + body;
  }
}

export class CutProxy {
  /** Connections taken. */
  connections = 0;
  /** Of the connections to come, in order; further ones pass whole. */
  plan: Cut[] = [];
  private readonly sockets = new Set<Socket>();
  private readonly server = createServer((client) => this.accept(client));

  private constructor(private readonly target: { host: string; port: number }) {}

  /** @param target host:port */
  static async open(target: string): Promise<CutProxy> {
    const { hostname, port } = new URL(`http://${target}`);
    const proxy = new CutProxy({ host: hostname, port: Number(port) });
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  private accept(client: Socket): void {
    this.connections++;
    const cut = this.plan.shift();
    client.on("error", () => undefined);
    if (cut === "refused") return void client.destroy();
    const server = connect(this.target);
    server.on("error", () => undefined);
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.sockets.add(one);
      one.setNoDelay(true);
      one.once("close", () => {
        this.sockets.delete(one);
        other.destroy();
      });
    }
    client.on("data", (bytes) => server.write(bytes));
    if (cut === undefined) return void server.on("data", (bytes) => client.write(bytes));
    const counter = new MessageCounter(cut);
    server.on("data", (bytes) => {
      if (client.writableEnded) return;
      const passing = counter.take(bytes);
      if (passing === undefined) return void client.write(bytes);
      client.end(bytes.subarray(0, passing), () => client.destroy());
    });
  }

  /** Cuts every connection there is. */
  cutAll(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.server.close();
    this.cutAll();
    await once(this.server, "close");
  }
}
