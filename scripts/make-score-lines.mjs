// Writes the bundled pages as lines of `tessera score`: every field's answer to its question, and every transcription.
// node scripts/make-score-lines.mjs > pages.jsonl
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const FOLDER = join(dirname(fileURLToPath(import.meta.url)), "../models/documents");
/** What the models are trained to be asked for a page's text. */
const READ = "Read the text.";

const pages = JSON.parse(readFileSync(join(FOLDER, "documents.json"), "utf8"));
for (const { file, questions, transcription } of pages) {
  const pairs = [...questions, { question: READ, answer: transcription }];
  for (const { question: prompt, answer: text } of pairs) {
    const line = { id: `${file}: ${prompt}`, images: [`file:${join(FOLDER, file)}`], prompt, text };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  }
}
