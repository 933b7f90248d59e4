import { pino } from 'pino';
import type { LoggingConfig } from './config/config-schema.ts';

export type Logger = pino.Logger;

/** The log can't be written where the configuration wants it. */
export class LogFileUnusable extends Error {
  readonly code = 'LOG_FILE_UNUSABLE';
  override readonly name = 'LogFileUnusable';
}

const standardError = 2;
const ownerOnly = 0o600;
/** Deeper than anything we log on purpose; a cycle ends here. */
const depthMax = 6;
/** User name and password of an address, and what signs a presigned one. */
const userInfo = /:\/\/[^/\s"@]+@/g;
const signedQuery = /([?&](?:X-Amz-Signature|X-Amz-Security-Token|X-Amz-Credential|sig)=)[^&\s"\\]+/gi;

/**
 * JSON lines, written before the call returns: the last words of a crash are in the log. `Secret` and `DataKey` print
 * as `[redacted]` by themselves; bytes print as their count; passwords in addresses are cut out.
 */
export function createLogger({ level, file }: LoggingConfig): Logger {
  return createLoggerTo(openDestination(file), level);
}

export function createLoggerTo(destination: pino.DestinationStream, level: LoggingConfig['level']): Logger {
  return pino(
    {
      level,
      base: { process: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: {
        level: (label) => ({ level: label }),
        log: (fields) => withoutBytes(fields, 0) as Record<string, unknown>,
      },
      hooks: { streamWrite: withoutPasswords },
    },
    destination,
  );
}

function openDestination(file: string | null): pino.DestinationStream {
  try {
    return pino.destination({ dest: file ?? standardError, sync: true, append: true, mode: ownerOnly });
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    throw new LogFileUnusable(`the log file ${file} can't be opened (${code})`, { cause });
  }
}

function withoutPasswords(line: string): string {
  return line.replace(userInfo, '://[redacted]@').replace(signedQuery, '$1[redacted]');
}

/** Bytes may be plaintext or a key, and thousands of numbers are of no use in a log. Classes keep their own toJSON. */
function withoutBytes(value: unknown, depth: number): unknown {
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return `[${value.byteLength} bytes]`;
  if (Array.isArray(value)) return depth === depthMax ? '[…]' : value.map((item) => withoutBytes(item, depth + 1));
  if (!isPlainObject(value)) return value;
  if (depth === depthMax) return '{…}';
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withoutBytes(item, depth + 1)]));
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
