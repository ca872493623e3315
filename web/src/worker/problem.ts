// Why a photo, or the model, cannot be used.

import type { FailureReason, ProblemReason } from '../site/messages';

/** A photo cannot be used. */
export class Problem extends Error {
  constructor(readonly reason: ProblemReason) {
    super(reason);
  }
}

/** The model cannot be used. */
export class Failure extends Error {
  constructor(readonly reason: FailureReason, options?: ErrorOptions) {
    super(reason, options);
  }
}

/** Whether an error says that memory is short; each engine has its own words. */
export const isMemory = (error: unknown): boolean =>
  error instanceof RangeError || /memory|bad_alloc|allocat/i.test(String(error));
