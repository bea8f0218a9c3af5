// Checks over the text of the repository. Each takes what it looks at and returns a list of problems, as sentences.
import { posix } from "node:path";

/** What a TypeScript folder may import from `@tessera/…`; a folder not named here may import everything. */
export const MAY_IMPORT = {
  proto: [],
  model: [],
  native: [],
  client: ["proto"],
  coordinator: ["proto", "model", "native/image"],
  "shard-worker": ["proto", "model", "native/engine"],
  cli: ["client", "coordinator", "shard-worker", "model"],
};

/** What a folder of native/ may include, itself aside. `test` and `bench` may include everything. */
export const MAY_INCLUDE = {
  core: [],
  ops: ["core"],
  image: ["core"],
  program: ["ops", "core"],
  cache: ["ops", "core"],
  collective: ["ops", "core"],
  engine: ["program", "cache", "collective", "ops", "core"],
  binding: ["engine", "bench", "image", "program", "cache", "collective", "ops", "core"],
};

/** Packages that one file alone may import. */
export const ONE_DOOR = { nats: "proto/src/nats.ts" };

export const LIMITS = { fileLines: 500, functionLines: 70, codeColumns: 100, proseColumns: 120 };

const BANNED = [
  /\bFIXME\b/,
  /\bXXX\b/,
  /\bHACK\b/,
  /\bTODO(?!\(#\d+\))/,
  /[/](home|root|Users)[/]\w/,
  /\butils?\//,
];

/** What a folder of coordinator/src may import from its siblings; files beside them may import everything. */
export const COORDINATOR = {
  request: [],
  schedule: [],
  cluster: ["metrics"],
  access: [],
  grammar: ["request", "metrics"],
  trace: [],
  engine: ["access", "grammar", "request", "schedule", "cluster", "metrics", "trace"],
  stream: ["access", "engine", "request", "metrics", "trace"],
  grpc: ["access", "stream", "engine", "request", "cluster", "schedule", "metrics", "trace"],
  http: ["access", "stream", "engine", "request", "metrics", "trace"],
};

const IMPORT = /(?:\bfrom |\bimport\(|\bimport )"([^"]+)"/g;

/** `{path, text}` of one file → problems. */
export function checkImports({ path, text }) {
  const top = path.split("/")[0];
  const allowed = MAY_IMPORT[top];
  if (allowed === undefined || !/\.(ts|mjs)$/.test(path)) return [];
  const names = [...text.matchAll(IMPORT)].map((match) => match[1]);
  const packages = names
    .filter((name) => name.startsWith("@tessera/"))
    .map((name) => name.slice("@tessera/".length))
    .filter((name) => !allowed.some((prefix) => name === prefix || name.startsWith(`${prefix}/`)))
    .map((name) => `${path}: may not import @tessera/${name}`);
  const files = names
    .filter((name) => name.startsWith("."))
    .map((name) => posix.join(posix.dirname(path), name));
  return [
    ...packages,
    ...files
      .filter((file) => file.split("/")[0] !== top && !/\/package\.json$/.test(file))
      .map((file) => `${path}: may not import ${file}, another workspace, by its path`),
    ...files.flatMap((file) => insideCoordinator(path, file)),
  ];
}

/** Fronts ► loop ► { request, schedule, cluster }; folders in braces do not know each other. */
function insideCoordinator(path, file) {
  const folderOf = (name) => /^coordinator\/src\/([a-z-]+)(?:\/|\.[jt]s$)/.exec(name)?.[1];
  const [from, to] = [folderOf(path), folderOf(file)];
  const allowed = path.split("/").length > 3 ? COORDINATOR[from] : undefined;
  if (allowed === undefined || to === undefined || to === from || allowed.includes(to)) return [];
  return [`${path}: may not import ${to}/`];
}

export function checkDoors({ path, text }) {
  return Object.entries(ONE_DOOR)
    .filter(([name, door]) => path !== door && new RegExp(`(from |import\\()"${name}"`).test(text))
    .map(([name, door]) => `${path}: may not import ${name}, ${door} does`);
}

/** Who reads the environment: the command's configuration, and what looks at the machine. */
export const ENVIRONMENT_READERS = ["cli/src/config/config.ts", "cli/src/commands/doctor.ts"];

/** Of what is shipped; tests and benchmarks may look. */
export function checkEnvironment({ path, text }) {
  const shipped = MAY_IMPORT[path.split("/")[0]] !== undefined && !path.endsWith(".test.ts");
  if (!shipped || ENVIRONMENT_READERS.includes(path) || !/\bprocess\.env\b/.test(text)) return [];
  return [`${path}: may not read the environment, ${ENVIRONMENT_READERS[0]} does`];
}

export function checkIncludes({ path, text }) {
  const [top, folder] = path.split("/");
  const allowed = MAY_INCLUDE[folder];
  if (top !== "native" || allowed === undefined) return [];
  const folders = [...text.matchAll(/^#include "([a-z_]+)\//gm)].map((match) => match[1]);
  return folders
    .filter((name) => name !== folder && !allowed.includes(name))
    .map((name) => `${path}: may not include ${name}/`);
}

export function checkBanned({ path, text }) {
  if (path.startsWith("scripts/tidy/")) return [];
  return BANNED.filter((word) => word.test(text)).map((word) => `${path}: banned: ${word}`);
}

function isComment(line) {
  return /^\s*(\/\/|\/\*|\*|#(?!include|define|if|endif|pragma))/.test(line);
}

/** Lines of a file and columns of a line; what a formatter cannot break (a long string, an import) is let be. */
export function checkSizes({ path, text }) {
  const lines = text.split("\n");
  const problems = [];
  if (lines.length - 1 > LIMITS.fileLines)
    problems.push(`${path}: ${lines.length - 1} lines, limit ${LIMITS.fileLines}`);
  lines.forEach((line, i) => {
    const limit = isComment(line) ? LIMITS.proseColumns : LIMITS.codeColumns;
    const code = isComment(line) ? line : line.replace(/\s*\/\/.*$/, "");
    const long = code.length > limit && !/["'`]/.test(code);
    if (long || line.length > LIMITS.proseColumns + 20)
      problems.push(`${path}:${i + 1}: ${line.length} columns, limit ${limit}`);
  });
  return problems;
}

const NOT_A_FUNCTION = /\b(namespace|class|struct|enum|union|extern)\b/;

/** Lines of C++ functions: a brace opened in column 0 … 2 by a line that ends a signature, to its closing brace. */
export function checkCppFunctions({ path, text }) {
  if (!/\.(cc|h|cu|cuh)$/.test(path)) return [];
  const lines = text.split("\n");
  const problems = [];
  for (let i = 0; i < lines.length; i++) {
    const head =
      /^( {0,2})\S.*\)[^;]*\{$/.exec(lines[i]) ?? /^( {4,6})\S.*\)[^;]*\{$/.exec(lines[i]);
    if (head === null || /^\s*(if|for|while|switch|}|else|do)\b/.test(lines[i])) continue;
    if (NOT_A_FUNCTION.test(lines[i].split("(")[0])) continue;
    const close = closing(lines, i);
    if (close - i + 1 > LIMITS.functionLines)
      problems.push(
        `${path}:${i + 1}: function of ${close - i + 1} lines, limit ${LIMITS.functionLines}`,
      );
  }
  return problems;
}

function closing(lines, start) {
  let depth = 0;
  for (let i = start; i < lines.length; i++) {
    for (const letter of lines[i].replace(/'.'|"[^"]*"|\/\/.*/g, "")) {
      if (letter === "{") depth++;
      if (letter === "}") depth--;
    }
    if (depth <= 0) return i;
  }
  return lines.length - 1;
}

/** Each dependency named in a package.json stands in docs/dependencies.md, and none stands there that is not used. */
export function checkDependencies({ packages, page }) {
  const used = new Set(
    packages
      .flatMap(({ dependencies = {}, devDependencies = {} }) => [
        ...Object.keys(dependencies),
        ...Object.keys(devDependencies),
      ])
      .filter((name) => !name.startsWith("@tessera/") && !name.startsWith("@types/")),
  );
  const rows = page.split("\n").filter((line) => line.startsWith("|"));
  const named = new Set(
    rows.flatMap((row) => [...(row.split("|")[1] ?? "").matchAll(/`([^`]+)`/g)].map((m) => m[1])),
  );
  return [
    ...[...used]
      .filter((name) => !named.has(name))
      .map((name) => `docs/dependencies.md: ${name} has no line`),
    ...[...named]
      .filter((name) => !used.has(name))
      .map((name) => `docs/dependencies.md: ${name} is not a dependency`),
  ];
}

/** Exact versions only: a range would let a fresh install differ from the lockfile. */
export function checkPins(packages) {
  return packages.flatMap(({ name, dependencies = {}, devDependencies = {} }) =>
    Object.entries({ ...dependencies, ...devDependencies })
      .filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))
      .map(([dependency, version]) => `${name}: ${dependency} ${version} is not pinned`),
  );
}

const LICENCES = new Set([
  "0BSD",
  "Apache-2.0",
  "BlueOak-1.0.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "CC-BY-3.0",
  "CC0-1.0",
  "ISC",
  "LGPL-3.0-or-later", // libvips, linked dynamically by sharp
  "MIT",
  "Python-2.0",
  "Unlicense",
]);

/** `licences`: name@version → SPDX expression, as node_modules says it. */
export function checkLicences(licences) {
  return Object.entries(licences)
    .filter(([name]) => !/^(@tessera\/|tessera-root@)/.test(name))
    .filter(([, licence]) => {
      const names = String(licence)
        .replace(/[()*]/g, "")
        .split(/ AND | OR /);
      return !names.every((name) => LICENCES.has(name));
    })
    .map(([name, licence]) => `${name}: licence ${licence} is not on the list`);
}
