/** What Node and OpenSSL say of a request that never got an answer; the same whichever SDK sent it. */

const messageLengthMax = 300;

/** OpenSSL's verification results as Node names them (nodejs.org/api/tls.html#x509-certificate-error-codes). */
const tlsCodes: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_DECRYPT_CERT_SIGNATURE',
  'UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY',
  'UNABLE_TO_GET_CRL',
  'CERT_SIGNATURE_FAILURE',
  'CERT_NOT_YET_VALID',
  'CERT_HAS_EXPIRED',
  'CERT_CHAIN_TOO_LONG',
  'CERT_REVOKED',
  'CERT_UNTRUSTED',
  'CERT_REJECTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'PATH_LENGTH_EXCEEDED',
  'HOSTNAME_MISMATCH',
  'ERR_TLS_CERT_ALTNAME_INVALID',
]);

export function isUntrusted(code: string): boolean {
  return tlsCodes.has(code);
}

/** The code of an error that Node's network calls threw; null when it came from elsewhere. */
export function networkCode(error: Error): string | null {
  const code = field(error, 'code');
  return typeof code === 'string' && isNetworkCode(code, error) ? code : null;
}

function isNetworkCode(code: string, error: Error): boolean {
  return (
    'syscall' in error ||
    tlsCodes.has(code) ||
    code === 'ECONNRESET' ||
    code === 'EPROTO' ||
    code.startsWith('ERR_SSL') ||
    code.startsWith('ERR_PROXY') ||
    code.startsWith('HPE_')
  );
}

/** What a store or an SDK says, as the end of a line of our own: printable, short, and nothing when it is the code once more. */
export function said(message: string, code: string): string {
  const printable = message
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .replace(/\.+$/, '');
  return printable === '' || printable === code ? '' : `: ${printable.slice(0, messageLengthMax)}`;
}

/** How long `Retry-After` asks to wait; null when it does not. */
export function retryAfterMs(header: string | undefined): number | null {
  const seconds = Number(header ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : null;
}

/** Stores refuse signatures more than 15 minutes off; the margin covers the request's own time on the way. */
const clockSkewMsMin = 14 * 60 * 1000;

/** Whether the Date of an answer says that our clock is the reason of a refusal. */
export function clockIsOff(date: string | undefined): boolean {
  return Math.abs(Date.parse(date ?? '') - Date.now()) > clockSkewMsMin;
}

export function field(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null ? Reflect.get(of, name) : undefined;
}
