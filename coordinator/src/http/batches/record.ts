/** What is known of a batch, as it is kept and as it is told. */
import type { TenantPolicy } from "../../access/caller.js";

export const ENDPOINTS = ["/v1/chat/completions", "/v1/completions"] as const;
export type Endpoint = (typeof ENDPOINTS)[number];

export type Status =
  | "validating"
  | "in_progress"
  | "finalizing"
  | "completed"
  | "failed"
  | "expired"
  | "cancelling"
  | "cancelled";

const ENDED = new Set<Status>(["completed", "failed", "expired", "cancelled"]);

/** A line of the input that is wrong. */
export interface LineFault {
  code: string;
  message: string;
  param: string | null;
  line: number | null;
}

export interface BatchRecord {
  id: string;
  /** On whose account the lines are answered. */
  tenant: string;
  policy: TenantPolicy;
  endpoint: Endpoint;
  inputFileId: string;
  metadata: Record<string, string> | null;
  createdMs: number;
  expiresMs: number;
  status: Status;
  /** When a status was entered. */
  enteredMs: Partial<Record<Status, number>>;
  faults: LineFault[];
  counts: { total: number; completed: number; failed: number };
  outputFileId?: string;
  errorFileId?: string;
}

export function ended({ status }: Pick<BatchRecord, "status">): boolean {
  return ENDED.has(status);
}

export function enter(record: BatchRecord, status: Status, nowMs: number): void {
  record.status = status;
  record.enteredMs[status] = nowMs;
}

function seconds(ms: number | undefined): number | null {
  return ms === undefined ? null : Math.floor(ms / 1e3);
}

/** OpenAI's. */
export function batchBody(record: BatchRecord): { id: string } & Record<string, unknown> {
  const { id, endpoint, faults, counts, enteredMs: at } = record;
  return {
    id,
    object: "batch",
    endpoint,
    errors: faults.length === 0 ? null : { object: "list", data: faults },
    input_file_id: record.inputFileId,
    completion_window: "24h",
    status: record.status,
    output_file_id: record.outputFileId ?? null,
    error_file_id: record.errorFileId ?? null,
    created_at: seconds(record.createdMs),
    in_progress_at: seconds(at.in_progress),
    expires_at: seconds(record.expiresMs),
    finalizing_at: seconds(at.finalizing),
    completed_at: seconds(at.completed),
    failed_at: seconds(at.failed),
    expired_at: seconds(at.expired),
    cancelling_at: seconds(at.cancelling),
    cancelled_at: seconds(at.cancelled),
    request_counts: { ...counts },
    metadata: record.metadata,
  };
}
