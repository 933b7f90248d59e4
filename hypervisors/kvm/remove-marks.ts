import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { QmpLost, QmpRefused } from './kvm-errors.ts';
import type { Marks } from './marks.ts';
import { listDisks, listNodes, parse } from './qemu-disks.ts';
import type { QmpClient } from './qmp-client.ts';
import { resumePaused, whilePaused } from './while-paused.ts';

/**
 * Takes out of a QEMU what a snapshot of ours put there, by its names alone: at the end of the snapshot, and before the next one where the
 * agent was killed. The bitmaps that record stay.
 */

const goneTimeoutMs = 30_000;
const pollMs = 10;

const exports = z.array(z.object({ id: z.string() }));
const jobs = z.array(z.object({ device: z.string() }));

export async function removeMarks(qmp: QmpClient, marks: Marks, nbdSocket: string, signal: AbortSignal): Promise<void> {
  await resumePaused(qmp, marks, signal);
  // Readers first: without the job, what they read would not be the snapshot any more.
  await removeExports(qmp, marks, signal);
  await cancelJobs(qmp, marks, signal);
  await removeFilters(qmp, marks, signal);
  await removeNodes(qmp, marks.isOurs, signal);
  await removeFrozenBitmaps(qmp, marks, signal);
  if (await answers(nbdSocket)) await qmp.run('nbd-server-stop', {}, signal);
}

export async function removeExports(qmp: QmpClient, marks: Marks, signal: AbortSignal): Promise<void> {
  const ours = async (): Promise<readonly string[]> =>
    parse(exports, await qmp.run('query-block-exports', {}, signal), 'query-block-exports')
      .map(({ id }) => id)
      .filter(marks.isOurs);
  for (const id of await ours())
    await unlessGone(
      qmp.run('block-export-del', { id, mode: 'hard' }, signal),
      async () => !(await ours()).includes(id),
    );
  await untilNone(ours, 'exports', signal);
}

export async function cancelJobs(qmp: QmpClient, marks: Marks, signal: AbortSignal): Promise<void> {
  const ours = async (): Promise<readonly string[]> => (await listJobs(qmp, signal)).filter(marks.isOurs);
  for (const device of await ours())
    await unlessGone(
      qmp.run('block-job-cancel', { device, force: true }, signal),
      async () => !(await ours()).includes(device),
    );
  await untilNone(ours, 'jobs', signal);
}

/** Ids of all block jobs, whoever began them. */
export async function listJobs(qmp: QmpClient, signal: AbortSignal): Promise<readonly string[]> {
  return parse(jobs, await qmp.run('query-block-jobs', {}, signal), 'query-block-jobs').map(({ device }) => device);
}

/** Gives each disk that a filter stands before back to its device. */
async function removeFilters(qmp: QmpClient, marks: Marks, signal: AbortSignal): Promise<void> {
  const filtered = (await listDisks(qmp, signal)).filter(({ node }) => marks.isOurs(node));
  const nodes = await listNodes(qmp, signal);
  const behind = filtered.map(({ node: filter, devicePath }) => {
    const mark = marks.behindFilter(Number(filter.slice(marks.filter(0).length - 1)));
    return { devicePath, node: nodes.find(({ bitmaps }) => bitmaps.includes(mark))?.node };
  });
  const [first] = behind;
  if (first === undefined) return;
  const lost = behind.find(({ node }) => node === undefined);
  if (first.node === undefined || lost !== undefined)
    throw new QmpLost(
      `${lost?.devicePath}: somebody removed the mark that tells which disk a filter of ours stands before`,
    );
  // The nodes, too: QEMU's graph is changed only while no request is under way.
  await whilePaused(qmp, marks, first.node, signal, async () => {
    // What reads by a filter keeps it from letting go.
    await removeNodes(qmp, (name) => marks.isOurs(name) && marks.isReader(name), signal);
    for (const { devicePath, node } of behind)
      await qmp.run('qom-set', { path: devicePath, property: 'drive', value: node }, signal);
    await removeNodes(qmp, marks.isOurs, signal);
  });
}

/** Those above others go first, and QEMU says no to the others until then. */
async function removeNodes(qmp: QmpClient, isMeant: (name: string) => boolean, signal: AbortSignal): Promise<void> {
  const ours = async (): Promise<readonly string[]> =>
    (await listNodes(qmp, signal)).map(({ node }) => node).filter(isMeant);
  for (let left = await ours(); left.length > 0; ) {
    let refusal: QmpRefused | null = null;
    for (const name of left)
      await qmp.run('blockdev-del', { 'node-name': name }, signal).catch((error: unknown) => {
        if (!(error instanceof QmpRefused)) throw error;
        refusal = error;
      });
    const now = await ours();
    if (now.length === left.length) throw refusal ?? new QmpLost('nodes that were removed are still there');
    left = now;
  }
}

async function removeFrozenBitmaps(qmp: QmpClient, marks: Marks, signal: AbortSignal): Promise<void> {
  for (const { node, bitmaps } of await listNodes(qmp, signal))
    for (const name of bitmaps)
      if (marks.isOurs(name) && !marks.isReferencePoint(name) && name !== marks.freezing)
        await qmp.run('block-dirty-bitmap-remove', { node, name }, signal);
}

/** What was about to go by itself may be gone before we come to it. */
async function unlessGone(work: Promise<unknown>, isGone: () => Promise<boolean>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof QmpRefused) || !(await isGone())) throw error;
  }
}

async function untilNone(list: () => Promise<readonly string[]>, what: string, signal: AbortSignal): Promise<void> {
  const until = performance.now() + goneTimeoutMs;
  for (;;) {
    const left = await list();
    if (left.length === 0) return;
    if (performance.now() > until)
      throw new QmpLost(
        `QEMU still has the ${what} ${left.join(', ')} ${goneTimeoutMs / 1000} s after it was told to end them`,
      );
    await sleep(pollMs, undefined, { signal });
  }
}

/** QEMU has one NBD server, and does not say whose: at our socket, it is ours. */
async function answers(socketPath: string): Promise<boolean> {
  const socket = createConnection({ path: socketPath });
  const answered = Promise.withResolvers<boolean>();
  socket.once('connect', () => answered.resolve(true));
  socket.once('error', () => answered.resolve(false));
  try {
    return await answered.promise;
  } finally {
    socket.destroy();
  }
}
