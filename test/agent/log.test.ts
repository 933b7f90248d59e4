import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { LogLevel } from '../../agent/config/config-schema.ts';
import { createLogger, createLoggerTo, LogFileUnusable } from '../../agent/log.ts';
import { DataKey } from '../../crypto/data-key.ts';
import { Secret } from '../../crypto/redacted.ts';
import { canaries, recordOutput } from '../canary.ts';

const { password, token, keyBytes, secretAccessKey } = canaries();

function recordingLogger(level: LogLevel = 'info') {
  const lines: string[] = [];
  const write = (line: string) => {
    recordOutput(line);
    lines.push(line);
  };
  return { logger: createLoggerTo({ write }, level), lines };
}

it('writes one JSON object a line, with the level as a word and the time as a text', () => {
  const { logger, lines } = recordingLogger();
  logger.info({ machine: 'web-1' }, 'seeded');
  logger.debug('not shown at this level');
  expect(lines.length).toBe(1);
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({ level: 'info', machine: 'web-1', msg: 'seeded' });
  expect(JSON.parse(lines[0] ?? '').time).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
});

it('never prints a secret, wherever it hangs', () => {
  const { logger, lines } = recordingLogger();
  const secret = new Secret(secretAccessKey);
  logger.info({ secret, deep: { list: [{ secret }] } }, 'fields');
  logger.info(secret, 'the object itself');
  logger.info(`in a text: ${secret}`);
  logger.info('as a parameter: %s %o %j', secret, secret, secret);
  logger.error(Object.assign(new Error('failed'), { secret, options: { secret } }));
  logger.child({ secret }).info('from a child');
  expect(lines.length).toBe(6);
  expect(lines.join('')).toContain('[redacted]');
  expect(lines.join('')).not.toContain(secretAccessKey);
});

it('never prints key bytes, as a DataKey or as bytes', () => {
  const { logger, lines } = recordingLogger();
  const bytes = Uint8Array.from(keyBytes);
  logger.info({ key: new DataKey(Uint8Array.from(keyBytes)), bytes, nested: [{ bytes: Buffer.from(bytes) }] }, 'keys');
  const { key, bytes: shown, nested } = JSON.parse(lines[0] ?? '');
  expect([key, shown, nested]).toEqual(['[redacted]', '[32 bytes]', [{ bytes: '[32 bytes]' }]]);
});

it('cuts passwords out of addresses, in errors and their causes too', () => {
  const { logger, lines } = recordingLogger();
  const address = `http://user:${password}@proxy.example:3128/path`;
  logger.warn({ address }, `trying ${address}`);
  logger.error(new Error('no answer', { cause: new Error(`GET ${address}?X-Amz-Signature=${token}&x=1`) }));
  expect(lines.join('')).toContain('http://[redacted]@proxy.example:3128/path');
  expect(lines.join('')).not.toContain(password);
  expect(lines.join('')).not.toContain(token);
  for (const line of lines) expect(() => JSON.parse(line)).not.toThrow();
});

it('survives a cycle', () => {
  const { logger, lines } = recordingLogger();
  const cycle: Record<string, unknown> = { name: 'loop' };
  cycle.self = cycle;
  logger.info({ cycle }, 'round');
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({ msg: 'round', cycle: { name: 'loop' } });
});

it('appends to a file that only its owner may read, at once', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-log-'));
  const file = join(folder, 'agent.log');
  createLogger({ level: 'info', file }).info('first');
  createLogger({ level: 'info', file }).info('second');
  const text = await readFile(file, 'utf8');
  expect(
    text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).msg),
  ).toEqual(['first', 'second']);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  await rm(folder, { recursive: true });
});

it('says which log file it can not open', () => {
  expect(() => createLogger({ level: 'info', file: '/nowhere/agent.log' })).toThrow(LogFileUnusable);
  expect(() => createLogger({ level: 'info', file: '/nowhere/agent.log' })).toThrow(/\/nowhere\/agent\.log .*ENOENT/);
});
