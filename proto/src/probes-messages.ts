/** What a process's main thread and its probes thread say to each other. */

export type FromProbes =
  | { kind: "listening"; port: number }
  | { kind: "failed"; message: string }
  | { kind: "ask"; id: number; path: string; accept: string };

export interface ToProbes {
  id: number;
  status: number;
  contentType: string;
  body: string;
}
