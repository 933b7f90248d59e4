import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { remedyFor } from '../../agent/remedy.ts';
import { canaries } from '../canary.ts';
import { type ErrorRow, type ErrorRowName, errorRows } from './error-rows.ts';
import { type Laboratory, type Situation, situations } from './error-situations.ts';
import type { Outcome } from './failkit-process.ts';
import { endToEndNeeds, startPeers } from './peers.ts';
import { machineName, makeSite } from './site.ts';

/** Every row of docs/operations/errors.md, made to happen. */

const needs = await endToEndNeeds();

interface FailureDocument {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly hint: string | null;
    readonly exitCode: number;
  };
}

describe.skipIf(needs !== null)(needs ?? 'what goes wrong has a name, and says what to do', () => {
  let laboratory: Laboratory;
  const opened = new AsyncDisposableStack();
  beforeAll(async () => {
    const servers = opened.use(await startPeers({ enforceIam: true }));
    const { peers, bucket } = await servers.place();
    opened.use(bucket);
    const site = opened.use(await makeSite(peers));
    for (const args of [['init', '--kit', join(site.folder, 'kit')], ['seed'], ['sync']]) {
      const outcome = await site.failkit(...args);
      expect(outcome.exitCode, outcome.stderr).toBe(0);
    }
    laboratory = { servers, peers, bucket, site };
  });
  afterAll(() => opened.disposeAsync());

  it.for(Object.entries(errorRows) as [ErrorRowName, ErrorRow][])('%s', async ([name, row], context) => {
    const { needs: rowNeeds, arrange } = situations[name];
    const missing = (await rowNeeds?.()) ?? null;
    if (missing !== null) context.skip(missing);
    const { servers, site, bucket } = laboratory;
    const environment = { ...site.environment };
    const situation = await arrange(laboratory);
    const settle = async () => {
      servers.wire.beforeEach(() => undefined);
      await situation.undo?.();
      Object.assign(site.environment, environment);
      for (const added of Object.keys(site.environment)) if (!(added in environment)) delete site.environment[added];
    };
    try {
      Object.assign(site.environment, situation.environment);
      await site.configure(situation.settings);
      const before = await bucket.keys();
      const outcome = await site.failkit(...situation.args, '--json');
      expectRow(outcome, row, situation);
      const changed = (await bucket.keys()).length !== before.length;
      await settle();
      // What the failed run did write, if anything, is in nobody's way.
      if (situation.succeedsLater) expect(await exitCodeOf(situation.args)).toBe(0);
      await site.configure();
      if (changed) expect(await exitCodeOf(['sync'])).toBe(0);
    } catch (error) {
      await settle();
      await site.configure();
      throw error;
    }
  });

  it('after all of that the machine is still protected, and every point is there', async () => {
    const { site } = laboratory;
    expect(await exitCodeOf(['sync'])).toBe(0);
    const listed = await site.failkit('points', machineName, '--json');
    expect(listed.exitCode, listed.stderr).toBe(0);
    expect(await exitCodeOf(['restore', machineName, '--to', join(site.folder, 'after-all')])).toBe(0);
  });

  async function exitCodeOf(args: readonly string[]): Promise<number> {
    const { exitCode, stderr } = await laboratory.site.failkit(...args);
    if (exitCode !== 0) process.stdout.write(stderr);
    return exitCode;
  }
});

function expectRow({ exitCode, stdout, stderr, json }: Outcome, row: ErrorRow, situation: Situation): void {
  const printed = stdout + stderr;
  expect(stderr, printed).toContain('failkit: ');
  const { error } = json<FailureDocument>();
  expect([exitCode, error.code], printed).toEqual([row.exitCode, row.code]);
  expect(error.message).toContain(row.says);
  expect(stderr).not.toMatch(/^\s+at /m);
  const hint = remedyFor(Object.assign(new Error(), { code: row.code }))?.hint ?? null;
  expect(error.hint ?? '').toBe(hint);
  if (hint !== '') expect(stderr).toContain(`what to do: ${hint}`);
  for (const secret of [canaries().secretAccessKey, canaries().token]) expect(printed).not.toContain(secret);
  for (const path of situation.absent ?? []) expect(existsSync(path), path).toBe(false);
}
