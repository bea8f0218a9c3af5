/** `make demo`: two workers, a document picture, four questions, answers as they stream; checked against the known ones. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Role, TesseraClient } from "@tessera/client";
import { startCluster } from "./supervisor.js";

const root = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const PICTURE = "document-02.png";
const say = (text: string) => process.stdout.write(text);

interface Page {
  file: string;
  transcription: string;
  questions: { question: string; answer: string }[];
}

async function showTiles(picture: Buffer): Promise<void> {
  const { decodeImage, IMAGE_LIMITS, tileImage } = await import("@tessera/coordinator/request");
  const image = await decodeImage(picture, { field: PICTURE, limits: IMAGE_LIMITS });
  const options = { tileSize: 112, maxTiles: 6, useThumbnail: true };
  const { grid, tiles } = await tileImage(image, options);
  say(
    `${PICTURE}: ${image.width} × ${image.height} pixels, ${grid[0]} × ${grid[1]} tiles and a thumbnail:\n`,
  );
  tiles.forEach((tile, i) => say(`  tile ${i + 1}  sha256 ${tile.sha256.slice(0, 16)}…\n`));
}

/** Streams one answer; returns it. */
async function ask(client: TesseraClient, picture: Buffer, question: string): Promise<string> {
  const parts = [
    { content: { case: "image" as const, value: { data: picture } } },
    { content: { case: "text" as const, value: question } },
  ];
  const start = performance.now();
  let first = 0;
  let text = "";
  say(`\n> ${question}\n  `);
  for await (const { kind } of client.generate({
    messages: [{ role: Role.USER, parts }],
    maxTokens: 64,
  })) {
    if (kind.case === "delta") {
      first ||= performance.now() - start;
      text += kind.value.text;
      say(kind.value.text.replaceAll("\n", "\n  "));
    }
    if (kind.case === "done") {
      const tokens = kind.value.usage?.completionTokens ?? 0;
      const rate = tokens / ((performance.now() - start) / 1e3);
      say(
        `\n  (${tokens} tokens, ${rate.toFixed(0)} tokens/s, first after ${first.toFixed(0)} ms)\n`,
      );
    }
  }
  return text;
}

async function main(): Promise<number> {
  const pages = JSON.parse(
    await readFile(root("models/documents/documents.json"), "utf8"),
  ) as Page[];
  const page = pages.find((entry) => entry.file === PICTURE);
  if (page === undefined) throw new Error(`${PICTURE} is not in documents.json`);
  const picture = await readFile(root(`models/documents/${PICTURE}`));
  await showTiles(picture);
  say("starting a coordinator and two workers …");
  const cluster = await startCluster({
    model: root("models/nvlm-d-tiny"),
    workers: 2,
    port: 0,
    flags: {
      kv: "f32",
      wire: "f32",
      chatTemplate: "nvlm",
      stepDeadlineMs: 30_000,
      logLevel: "warn",
    },
  });
  say(` serving on ${cluster.address}\n`);
  const client = new TesseraClient({ addresses: [cluster.address] });
  let wrong = 0;
  try {
    const questions = [
      ...page.questions,
      { question: "Read the text.", answer: page.transcription },
    ];
    for (const { question, answer } of questions.slice(0, 4))
      if ((await ask(client, picture, question)) !== answer) wrong++;
  } finally {
    client.close();
    await cluster.stop();
  }
  say(
    wrong === 0
      ? "\nall answers are the known ones\n"
      : `\n${wrong} answers differ from the known ones\n`,
  );
  return wrong === 0 ? 0 : 1;
}

process.exit(await main());
