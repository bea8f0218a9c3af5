/** The thread of long texts. Started by `TextQueue`, whose tables it shares. */
import { parentPort, workerData } from "node:worker_threads";
import { Bpe, type BpeTables, type PlainText } from "./bpe.js";
import type { FromTextThread } from "./text-queue.js";

const port = parentPort;
if (port === null) throw new Error("text-thread runs as a worker thread");
const bpe = new Bpe(workerData as BpeTables);
port.on("message", (texts: PlainText[]) => {
  const encoded = texts.map((plain) => bpe.encodeMarked(plain));
  port.postMessage(
    { encoded } satisfies FromTextThread,
    encoded.map(({ ids }) => ids.buffer),
  );
});
