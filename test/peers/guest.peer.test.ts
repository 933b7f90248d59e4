import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bootGuest, guestNeeds, makeDataDisk, makeGuestDisk, qemuImg } from './guest.ts';
import { checkWritten, newestWrite, startWriter, stopWriter, writeLatency } from './guest-writer.ts';

const needs = await guestNeeds();

describe.skipIf(needs !== null)(`the guest that other tests boot${needs === null ? '' : ` (${needs})`}`, () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-guest-test-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('boots from its disk, runs commands, and remembers them after a power cut', async () => {
    const path = await makeGuestDisk(folder, { format: 'qcow2' });
    {
      await using guest = await bootGuest({ disks: [{ path, format: 'qcow2' }] });
      expect((await guest.ready()).boot).toBe(1);
      expect(await guest.run('echo one; echo two >&2; (exit 3)')).toEqual({ code: 3, output: 'one\ntwo' });
      expect(await guest.run('echo kept >/kept; sync')).toEqual({ code: 0, output: '' });
      expect(guest.serialLog()).toMatch(/Linux version/);
      await guest.kill();
      await expect(guest.run('true')).rejects.toThrow('the guest is gone');
    }
    await using guest = await bootGuest({ disks: [{ path, format: 'qcow2' }] });
    expect((await guest.ready()).boot).toBe(2);
    expect((await guest.run('cat /kept')).output).toBe('kept');
    await guest.powerOff();
    expect(await qemuImg(['check', path])).toMatch(/No errors/);
  });

  test('freezes and thaws through its agent, all disks at once', async () => {
    const boot = await makeGuestDisk(folder, { format: 'raw', name: 'frozen' });
    const data = await makeDataDisk(folder, { format: 'qcow2', sizeMiB: 64, name: 'frozen-data' });
    await using guest = await bootGuest({
      disks: [
        { path: boot, format: 'raw' },
        { path: data, format: 'qcow2', iothread: true },
      ],
    });
    await guest.ready();
    const made = await guest.run('mkfs.ext4 -q /dev/vdb && mkdir -p /data/vdb && mount /dev/vdb /data/vdb');
    expect(made).toEqual({ code: 0, output: '' });
    await startWriter(guest, { file: '/data/vdb/slots', mib: 8 });
    expect(await askAgent(guest.agentSocket, 'guest-fsfreeze-freeze')).toBe(2);
    expect(await askAgent(guest.agentSocket, 'guest-fsfreeze-status')).toBe('frozen');
    const before = await newestWrite(guest);
    await guest.run('sleep 0.5');
    expect(await newestWrite(guest)).toBeLessThanOrEqual(before + 1);
    expect(await askAgent(guest.agentSocket, 'guest-fsfreeze-thaw')).toBe(2);
    await guest.run('sleep 0.5');
    expect(await newestWrite(guest)).toBeGreaterThan(before + 1);
    await stopWriter(guest);
    const { writes, p50Us, p99Us, maxUs } = await writeLatency(guest);
    expect(writes).toBeGreaterThan(before);
    expect(p50Us).toBeLessThanOrEqual(p99Us);
    expect(maxUs).toBeGreaterThan(400_000);
    const written = await checkWritten(guest, '/data/vdb/slots');
    expect(written.torn).toBe(0);
    // What is on disk before it could be logged counts, too.
    expect(written.newest).toBeGreaterThanOrEqual(await newestWrite(guest));
    expect(written.good + written.empty).toBe(128);
  });

  test('boots with UEFI, too', async () => {
    const path = await makeGuestDisk(folder, { format: 'raw', name: 'uefi' });
    await using guest = await bootGuest({ disks: [{ path, format: 'raw' }], uefi: true, memoryMiB: 384 });
    await guest.ready();
    expect((await guest.run('ls -d /sys/firmware/efi')).code).toBe(0);
  });

  test('a machine that can not start says why', async () => {
    const disks = [{ path: join(folder, 'missing.raw'), format: 'raw' as const }];
    await expect(bootGuest({ disks })).rejects.toThrow(/missing\.raw/);
  });
});

async function askAgent(path: string, execute: string): Promise<unknown> {
  const socket = connect(path);
  socket.write(`${JSON.stringify({ execute })}\n`);
  for await (const line of createInterface({ input: socket })) {
    socket.destroy();
    return JSON.parse(line).return;
  }
  throw new Error('no answer');
}
