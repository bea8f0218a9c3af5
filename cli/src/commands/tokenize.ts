/** tessera tokenize: stdin → token ids. */
import { buffer } from "node:stream/consumers";
import type { Command } from "commander";

/** WTF-8's lone surrogates are three bytes from ED A0 80 on; each becomes one U+FFFD. */
function decodeInput(bytes: Buffer): string {
  const latin = bytes.toString("latin1").replace(/\xed[\xa0-\xbf][\x80-\xbf]/g, "\xef\xbf\xbd");
  return Buffer.from(latin, "latin1").toString("utf8");
}

export function addTokenize(program: Command): void {
  program
    .command("tokenize")
    .description("stdin → token ids")
    .requiredOption("--model <dir>", "needs only the tokenizer's files")
    .option("--special", "special-token text becomes special tokens")
    .option("--json", "one line of JSON")
    .addHelpText(
      "after",
      "\nExample:\n  echo -n Hello | tessera tokenize --model models/nvlm-d-tiny --json\n",
    )
    .action(async (flags: { model: string; special?: boolean; json?: boolean }) => {
      const { loadTokenizer } = await import("@tessera/coordinator/request");
      const tokenizer = await loadTokenizer(flags.model);
      const ids = tokenizer.encode(decodeInput(await buffer(process.stdin)), {
        special: flags.special === true,
      });
      const tokens = ids.map((id) => tokenizer.token(id) ?? "");
      const plain = ids.map((id, i) => `${id}\t${tokens[i]}\n`).join("");
      process.stdout.write(flags.json === true ? `${JSON.stringify({ ids, tokens })}\n` : plain);
    });
}
