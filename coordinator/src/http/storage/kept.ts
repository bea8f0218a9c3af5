/** What is kept under `--data-dir`. */
import { ServeError } from "@tessera/proto";

/** @throws ServeError REQUEST_NOT_FOUND where the server keeps nothing */
export function kept<T>(store: T | undefined, path: string): T {
  if (store !== undefined) return store;
  throw new ServeError(
    "REQUEST_NOT_FOUND",
    `${path} is not served: the server was started without --data-dir`,
  );
}
