/** A NATS that will not do, and options that do not fit. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { test } from "node:test";
import { NatsGroup } from "@tessera/proto/nats";
import { tessera } from "../harness/command.js";
import { NatsServer } from "../harness/nats.js";

const MODEL = "models/nvlm-d-tiny";
const WORKER = ["worker", "--model", MODEL, "--listen", "127.0.0.1:0"];
const COORDINATOR = ["coordinator", "--model", MODEL, "--listen", "127.0.0.1:0"];

function connect(url: string) {
  const handlers = { heartbeat() {}, changed() {}, problem() {} };
  return NatsGroup.connect({ url, group: "g", name: "test", connectDeadlineMs: 400 }, handlers);
}

test("JetStream off: worker and coordinator end, saying how to start the server", async () => {
  const nats = await NatsServer.start({ jetStream: false });
  try {
    for (const args of [WORKER, [...COORDINATOR, "--tensor-parallel", "1"]]) {
      const { code, stderr } = await tessera([...args, "--nats", nats.url]);
      assert.equal(code, 1);
      assert.match(
        stderr,
        /^tessera: nats:.*: JetStream is off \(.*\); start nats-server with -js$/m,
      );
    }
  } finally {
    await nats.remove();
  }
});

test("a server older than 2.9 is named with its version", async () => {
  const old = createServer((socket) => {
    const info = {
      server_id: "x",
      version: "2.8.4",
      proto: 1,
      headers: true,
      max_payload: 1 << 20,
    };
    socket.on("error", () => undefined).write(`INFO ${JSON.stringify(info)}\r\n`);
    socket.on("data", (bytes) => bytes.includes("PING") && socket.write("PONG\r\n"));
  });
  old.listen(0, "127.0.0.1");
  await once(old, "listening");
  try {
    const { port } = old.address() as AddressInfo;
    await assert.rejects(connect(`nats://127.0.0.1:${port}`), {
      code: "CONFIGURATION",
      message: `nats://127.0.0.1:${port}: nats-server is version 2.8.4, must be 2.9 or newer`,
    });
  } finally {
    old.close();
  }
});

test("a server that is not there is named, without the password, after the deadline", async () => {
  await assert.rejects(connect("nats://tessera:s3cret@127.0.0.1:1"), {
    code: "CONFIGURATION",
    message: /^nats:\/\/127\.0\.0\.1:1: not reached within 400 ms: /,
  });
});

const refused: [string, string[], RegExp[]][] = [
  [
    "workers and nats",
    [...COORDINATOR, "--workers", "127.0.0.1:1", "--nats", "nats://127.0.0.1:1"],
    [/workers and nats exclude each other/],
  ],
  ["neither workers nor nats", COORDINATOR, [/workers and nats are both missing/]],
  [
    "nats without a size, with a bad group, interval and URL: all named at once",
    [...COORDINATOR, "--nats", "http://x", "--group", "a.b", "--heartbeat-ms", "7"],
    [/tensor-parallel: is missing/, /group: "a\.b"/, /heartbeat-ms: 7/, /nats: must be nats:/],
  ],
  [
    "workers with what belongs to nats",
    [...COORDINATOR, "--workers", "127.0.0.1:1", "--group", "g", "--tensor-parallel", "1"],
    [/group: needs nats/, /tensor-parallel: needs nats/],
  ],
  ["a worker with a group and no nats", [...WORKER, "--group", "g"], [/group: needs nats/]],
  [
    "a worker that listens everywhere and says no address",
    ["worker", "--model", MODEL, "--listen", "0.0.0.0:0", "--nats", "nats://127.0.0.1:1"],
    [/advertise: 0\.0\.0\.0 is no address to be told/],
  ],
  [
    "a worker with an address that is none",
    [...WORKER, "--advertise", "here"],
    [/advertise: "here"/],
  ],
];

for (const [name, args, messages] of refused)
  test(`refused: ${name}`, async () => {
    const { code, stderr } = await tessera(args);
    assert.equal(code, 1);
    for (const message of messages) assert.match(stderr, message);
  });
