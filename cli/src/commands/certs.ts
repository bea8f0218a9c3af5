/** tessera certs: an authority, a server's and a client's certificate for tests and trials. */
import { isIP } from "node:net";
import { InvalidArgumentError, type Command } from "commander";
import { from1 } from "./options.js";

const MAX_DAYS = 3650;
const MAX_HOSTS = 100;
const DNS_NAME = /^(\*\.)?[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*$/i;

function hostList(text: string): string[] {
  const hosts = text.split(",");
  if (hosts.length > MAX_HOSTS)
    throw new InvalidArgumentError(`has ${hosts.length} names, limit ${MAX_HOSTS}.`);
  const wrong = hosts.find((host) => isIP(host) === 0 && !DNS_NAME.test(host));
  if (wrong !== undefined)
    throw new InvalidArgumentError(`${JSON.stringify(wrong)} is no DNS name and no IP address.`);
  return hosts;
}

export function addCerts(program: Command): void {
  program
    .command("certs")
    .description("certificates for tests and trials: an authority, a server's and a client's")
    .argument("<dir>", "gets ca, server and client, each .pem and .key; nothing is overwritten")
    .option(
      "--host <names>",
      "DNS names and IP addresses of the server, with commas between (default: localhost,127.0.0.1,::1)",
      hostList,
    )
    .option("--days <count>", `valid from now on, 1 to ${MAX_DAYS}`, from1(MAX_DAYS), 365)
    .addHelpText(
      "after",
      "\nExample:\n  tessera certs tls --host worker-1,worker-2,10.0.0.7 --days 30\n",
    )
    .action(async (dir: string, { host, days }: { host?: string[]; days: number }) => {
      const { DEFAULT_HOSTS, writeCertificates } = await import("../certificates.js");
      const paths = await writeCertificates(dir, { hosts: host ?? DEFAULT_HOSTS, days });
      process.stdout.write(`${Object.values(paths).join("\n")}\n`);
    });
}
