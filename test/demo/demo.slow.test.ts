import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');

it('the demo of the README holds, beside whatever the tests have left below node_modules', () => {
  const { status, stdout } = spawnSync('npm', ['run', '--silent', 'demo'], { cwd: root, encoding: 'utf8' });
  expect([status, stdout]).toEqual([0, expect.stringMatching(/^✓ Everything held, in /m)]);
});
