import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { QmpClient } from '../../hypervisors/kvm/qmp-client.ts';
import { bootGuest, makeGuestDisk, qemuImg } from '../../test/peers/guest.ts';
import { openFailkit } from '../contestants/failkit.ts';
import { openServeStand, startServing } from './serve-stand.ts';

/** A machine that boots from its stored disk, beside the same machine from a local file; both write into an overlay. */

const qmpTimeoutMs = 10_000;

export interface BootRow {
  readonly round: number;
  readonly roundTripMs: number;
  readonly localMs: number;
  readonly servedMs: number;
  /** From the start of the agent until clients may connect. */
  readonly openMs: number;
  /** What QEMU asked of the disk for its guest. */
  readonly guestReadBytes: number;
  /** All that the agent got from the store, from its start on. */
  readonly fetchedBytes: number;
}

export interface BootStand extends AsyncDisposable {
  boot(round: number, roundTripMs: number): Promise<BootRow>;
}

/** A guest's disk, stored. */
export async function openBootStand(parent: string, launcher: string): Promise<BootStand> {
  await using opened = new AsyncDisposableStack();
  const folder = mkdtempSync(join(parent, 'boot-'));
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  const image = await makeGuestDisk(folder, { format: 'raw' });
  const stand = opened.use(await openServeStand(folder, image, launcher));
  const run = await openFailkit(stand.place, 'fastest', `path: ${image}`);
  await run('seed');
  const held = opened.move();
  return {
    boot: async (round, roundTripMs) => {
      const local = await bootFrom(folder, image);
      stand.wire.setDelay(roundTripMs / 2);
      const before = stand.wire.receivedBytes;
      const start = performance.now();
      await using served = await startServing(stand.place);
      const openMs = performance.now() - start;
      const remote = await bootFrom(folder, served.uri);
      const fetchedBytes = stand.wire.receivedBytes - before;
      return {
        ...{ round, roundTripMs, openMs, fetchedBytes },
        ...{ localMs: local.wallMs, servedMs: remote.wallMs, guestReadBytes: remote.readBytes },
      };
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Until the guest takes commands. */
async function bootFrom(
  folder: string,
  disk: string,
): Promise<{ readonly wallMs: number; readonly readBytes: number }> {
  const overlay = join(folder, 'overlay.qcow2');
  await qemuImg(['create', '-q', '-f', 'qcow2', '-b', disk, '-F', 'raw', overlay]);
  try {
    const start = performance.now();
    await using guest = await bootGuest({ disks: [{ path: overlay, format: 'qcow2' }] });
    await guest.ready();
    const wallMs = performance.now() - start;
    return { wallMs, readBytes: await readBytesOf(guest.testQmpSocket) };
  } finally {
    rmSync(overlay, { force: true });
  }
}

/** Firmware and boot loader included. */
async function readBytesOf(qmpSocket: string): Promise<number> {
  const signal = AbortSignal.timeout(qmpTimeoutMs);
  await using qmp = await QmpClient.open(qmpSocket, signal);
  const devices = await qmp.run('query-blockstats', {}, signal);
  return z
    .array(z.object({ stats: z.object({ rd_bytes: z.number() }) }))
    .parse(devices)
    .reduce((sum, { stats }) => sum + stats.rd_bytes, 0);
}
