import { execFile, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { minioNeeds } from '../peers/s3.ts';
import { worstShares } from '../windows.ts';

const needs = (await minioNeeds()) ?? namespaceNeeds();
const MiB = 2 ** 20;
const script = join(import.meta.dirname, 'wire/paced-traffic.ts');
/** MiB/s. */
const rates: readonly number[] = [1, 4, 20];
const seconds = 25;
/** Others who use the machine take time from client and server, and what was not sent then can't be sent later. */
const attemptsMax = 3;
/** Connections are opened and the reserve is spent. */
const startMs = 1_000;

/** The loopback device of a network namespace counts only what the test sends. */
function namespaceNeeds(): string | null {
  const made = spawnSync('unshare', ['--net', 'ip', 'link', 'set', 'lo', 'up']).status === 0;
  return made ? null : 'needs a network namespace of its own: root, unshare and ip';
}

async function traffic(direction: string, bytesPerSecond: number) {
  const node = `ip link set lo up && exec "$0" ${script} ${direction} ${bytesPerSecond} ${seconds}`;
  const { stdout } = await promisify(execFile)('unshare', ['--net', 'sh', '-c', node, process.execPath]);
  return JSON.parse(stdout);
}

describe.skipIf(needs !== null)(`a bandwidth limit on the wire${needs === null ? '' : ` (${needs})`}`, () => {
  it.each(['upload', 'download'])('is kept in every ten seconds, within 5 percent: %s', async (direction) => {
    let left = rates;
    for (let attempt = 0; attempt < attemptsMax && left.length > 0; attempt++) left = await missed(direction, left);
    expect(left).toEqual([]);
  });
});

/** Those of the rates that were not kept. */
async function missed(direction: string, rates: readonly number[]): Promise<readonly number[]> {
  const kept = rates.map(async (rate) => {
    const { least, most } = worstShares(await traffic(direction, rate * MiB), rate * MiB, startMs);
    console.log(`${direction} at ${rate} MiB/s: ${least.toFixed(3)} to ${most.toFixed(3)} of it`);
    return least > 0.95 && most < 1.05;
  });
  const all = await Promise.all(kept);
  return rates.filter((_, i) => !all[i]);
}
