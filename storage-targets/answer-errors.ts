import { ClockSkewed, Throttled, TlsUntrusted } from './errors.ts';
import { retryAfterMs } from './network-errors.ts';

/** Refusals that mean the same at every store, in the same words. `text`: what was asked of whom, and the store's own words. */

export function throttledError(text: string, retryAfter: string | undefined, because: ErrorOptions): Throttled {
  return new Throttled(`${text}. The store asks for fewer requests`, retryAfterMs(retryAfter), because);
}

export function skewedError(text: string, storeDate: string | undefined, because: ErrorOptions): ClockSkewed {
  return new ClockSkewed(`${text}. This host's clock is wrong; the store's says ${storeDate ?? 'nothing'}`, because);
}

export function untrustedError(text: string, because: ErrorOptions): TlsUntrusted {
  return new TlsUntrusted(
    `${text}. The server's certificate is not trusted: name its CA file, or check who answers there`,
    because,
  );
}
