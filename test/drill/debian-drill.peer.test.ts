import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { DrillResult } from '../../drill/drill.ts';
import { guestNeeds } from '../peers/guest.ts';
import { openDrillSite } from './drilled-machines.ts';

const needs = await guestNeeds('debian-guest');

describe.skipIf(needs !== null)(`a drill of a whole Debian${needs === null ? '' : ` (${needs})`}`, () => {
  test('systemd comes up from the served disk, and the guest agent runs what is asked', async () => {
    await using site = await openDrillSite(['debian']);
    const outcome = await site.failkit(
      ...['drill', '--local', 'debian', '--json', '--evidence', 'evidence', '--timeout', '900', '--memory-mib', '512'],
      ...['--check', 'command=systemctl is-active multi-user.target'],
    );
    expect(outcome.stderr).not.toMatch(/^failkit:/m);
    const [debian] = outcome.json<DrillResult>().machines;
    expect(debian?.findings).toEqual([]);
    expect(outcome.exitCode).toBe(0);
    expect(debian?.guest).toMatchObject({ hostName: { 'host-name': 'debian-guest' }, os: { id: 'debian' } });
    expect(await readFile(join(site.folder, 'evidence/debian/command-1.txt'), 'utf8')).toBe('active\n');
    // A boot reads a part of the disk; 700 MiB, a good third of them used.
    expect(debian?.fetchedBytes).toBeLessThan(150 * 2 ** 20);
  });
});
