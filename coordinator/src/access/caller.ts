/** Who asks, and what they may. */

export interface TenantLimits {
  /** Accepted and not ended. */
  requests?: number | undefined;
  /** Computed for the prompt and made for the answer. */
  tokensPerSecond?: number | undefined;
  /** Of requests accepted and not ended. */
  images?: number | undefined;
}

export interface TenantPolicy {
  /** Share of the machine beside other tenants that wait; default 1. */
  weight: number;
  limits: TenantLimits;
}

export interface Caller {
  tenant: string;
  /** May drain, and see the cluster. */
  admin: boolean;
  policy: TenantPolicy;
}

/** Everyone, where no keys are asked for. */
export const ANYONE: Caller = {
  tenant: "default",
  admin: true,
  policy: { weight: 1, limits: {} },
};
