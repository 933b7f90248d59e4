import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

it('a reader that can not be started for lack of descriptors says so, and takes nobody along', async () => {
  const script = join(import.meta.dirname, 'start-without-descriptors.ts');
  const limited = ['-c', 'ulimit -n 60 && exec "$0" "$1"', process.execPath, script];
  const { stdout } = await promisify(execFile)('sh', limited, { timeout: 60_000 });
  expect(stdout.trim()).toBe('spawn nbdkit EMFILE');
});
