import { spawn } from "node:child_process";
import { root } from "./paths.js";

export interface CommandResult {
  /** Of the process; −1 when a signal ended it. */
  code: number;
  stdout: string;
  stderr: string;
}

/** `npx tessera …` without npx. The process is killed at the deadline. */
export function tessera(
  args: string[],
  {
    input = "",
    deadlineMs = 60_000,
    cwd = root(""),
    environment = {},
  }: {
    input?: string | Uint8Array;
    deadlineMs?: number;
    cwd?: string;
    /** Beside this process's own. */
    environment?: Record<string, string>;
  } = {},
): Promise<CommandResult> {
  const child = spawn(process.execPath, [root("cli/bin/tessera.js"), ...args], {
    cwd,
    env: { ...process.env, ...environment },
  });
  const out = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    child[name].setEncoding("utf8").on("data", (text: string) => (out[name] += text));
  child.stdin.on("error", () => undefined).end(input);
  const timer = setTimeout(() => child.kill("SIGKILL"), deadlineMs);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? -1, ...out });
    });
  });
}
