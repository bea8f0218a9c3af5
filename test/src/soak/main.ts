/** `make soak`: node test/dist/soak/main.js [seconds] */
import { soak } from "./soak.js";

const DEFAULT_SECONDS = 600;
const LEAST_SECONDS = 30;

const [given] = process.argv.slice(2);
const seconds = given === undefined ? DEFAULT_SECONDS : Number(given);
if (!Number.isFinite(seconds) || seconds < LEAST_SECONDS) {
  process.stderr.write(`${given}: must be seconds, at least ${LEAST_SECONDS}\n`);
  process.exit(2);
}
const { lines, rising } = await soak(seconds);
process.stdout.write(`${lines.join("\n")}\n`);
process.stdout.write(rising.length === 0 ? "nothing rises\n" : `RISES: ${rising.join(", ")}\n`);
process.exit(rising.length === 0 ? 0 : 1);
