/** tessera keys new: an API key, said once, and its entry in the file of keys. */
import { createHash, randomBytes } from "node:crypto";
import { Argument, type Command } from "commander";

const KEY_BYTES = 32;

export function addKeys(program: Command): void {
  program
    .command("keys")
    .description("new: an API key, said once, and its entry for the file of --keys")
    .addArgument(new Argument("<what>", "the entry has the key's digest alone").choices(["new"]))
    .requiredOption("--tenant <name>", "whose key it is")
    .option("--admin", "may drain, and see the cluster")
    .addHelpText("after", "\nExample:\n  tessera keys new --tenant acme\n")
    .action(async (_what: string, { tenant, admin }: { tenant: string; admin?: boolean }) => {
      const { tenantNameProblem } = await import("@tessera/coordinator");
      const problem = tenantNameProblem(tenant);
      if (problem !== undefined) throw new Error(`tenant: ${problem}`);
      const key = `tessera-${randomBytes(KEY_BYTES).toString("base64url")}`;
      const digest = createHash("sha256").update(key).digest("hex");
      const entry = [`  - sha256: "${digest}"`, `    tenant: "${tenant}"`];
      if (admin === true) entry.push("    admin: true");
      process.stdout.write(`${key}\n\nkeys:\n${entry.join("\n")}\n`);
    });
}
