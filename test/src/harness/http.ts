const DEADLINE_MS = 10_000;

/** A page of a process's probes port. */
export async function get(
  address: string | undefined,
  path: string,
): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://${address ?? ""}${path}`, {
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  return { status: response.status, text: await response.text() };
}
