/** The rival of the exchange: two Node processes throw the same bytes to and fro over one TCP connection. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** Calls `whole` each time as many bytes as `size()` says have come. */
function onEvery(socket: Socket, size: () => number, whole: () => void): void {
  let got = 0;
  socket.on("data", (chunk) => {
    got += chunk.length;
    if (got < size()) return;
    assert.equal(got, size(), "one message at a time");
    got = 0;
    whole();
  });
}

/** Answers each message with as many bytes. */
export class TcpEcho {
  private message = Buffer.alloc(1);

  private constructor(private readonly server: Server) {}
  static async listen(): Promise<TcpEcho> {
    const server = createServer();
    const echo = new TcpEcho(server);
    server.on("connection", (socket) => {
      socket.setNoDelay(true);
      socket.on("error", () => socket.destroy());
      onEvery(
        socket,
        () => echo.message.length,
        () => socket.write(echo.message),
      );
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return echo;
  }
  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }
  setSize(bytes: number): void {
    this.message = Buffer.alloc(bytes);
  }
}

export class TcpThrower {
  private constructor(
    private readonly socket: Socket,
    private readonly message: Buffer,
  ) {}
  static async connect(port: number, bytes: number): Promise<TcpThrower> {
    const socket = connect(port, "127.0.0.1");
    socket.setNoDelay(true);
    await once(socket, "connect");
    return new TcpThrower(socket, Buffer.alloc(bytes));
  }

  /** Microseconds of each of `count` round trips, one behind the other. */
  throw(count: number): Promise<number[]> {
    const { socket, message } = this;
    const us: number[] = [];
    let start = 0n;
    const next = () => {
      start = process.hrtime.bigint();
      socket.write(message);
    };
    return new Promise((resolve, reject) => {
      socket.once("error", reject);
      onEvery(
        socket,
        () => message.length,
        () => {
          us.push(Number(process.hrtime.bigint() - start) / 1e3);
          if (us.length < count) return next();
          socket.removeAllListeners();
          resolve(us);
        },
      );
      next();
    });
  }
  close(): void {
    this.socket.destroy();
  }
}
