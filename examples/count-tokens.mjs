// The size of a prompt before it is sent: node examples/count-tokens.mjs 127.0.0.1:4000 PICTURE
import { readFile } from "node:fs/promises";
import { Role, TesseraClient } from "@tessera/client";

const [address, file] = process.argv.slice(2);
const client = new TesseraClient({ addresses: [address] });
const { maxModelLen, tokensPerTile } = await client.getModel();
const value = { data: await readFile(file), mediaType: "image/png", options: { maxTiles: 2 } };
const parts = [
  { content: { case: "image", value } },
  { content: { case: "text", value: "What is the item?" } },
];

const counted = await client.countTokens({ messages: [{ role: Role.USER, parts }] });
console.log(`${counted.tiles} tiles of ${tokensPerTile} tokens`);
console.log(`${counted.promptTokens} prompt tokens of ${maxModelLen}`);
client.close();
