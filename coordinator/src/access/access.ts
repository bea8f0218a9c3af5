/** Finds the caller of a request by its key. */
import { ANYONE, type Caller } from "./caller.js";

export interface Access {
  /**
   * `authorization`: of the header or the metadata of that name, absent when there is none.
   * @throws ServeError UNAUTHENTICATED
   */
  authenticate(authorization: string | undefined): Caller;
}

/** Nobody is asked for a key. */
export const OPEN_ACCESS: Access = { authenticate: () => ANYONE };
