/**
 * Run in a network namespace of its own, so that the loopback device counts this traffic and no other: puts or gets to a
 * real server, several at once, without a pause, under a limit. Prints what went over the wire by then, ten times a second.
 *
 *   node paced-traffic.ts upload|download BYTES_PER_SECOND SECONDS
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openS3Target } from '../../../storage-targets/s3.ts';
import { wrapTarget } from '../../../storage-targets/wrap-target.ts';
import { s3Options, startMinio } from '../../peers/s3.ts';

const [direction = '', rateText = '', secondsText = ''] = process.argv.slice(2);
const bytesPerSecond = Number(rateText);
const inFlight = 8;
const segmentBytes = 8 * 2 ** 20;
/** What restoring fetches at once. */
const rangeBytes = 4 * 2 ** 20;
const sampleEveryMs = 100;

await using peer = await startMinio();
await using store = await openS3Target(s3Options(peer, await peer.createBucket()));
const { target } = wrapTarget(store, {
  inFlightMax: inFlight,
  uploadBytesPerSecond: direction === 'upload' ? bytesPerSecond : null,
  downloadBytesPerSecond: direction === 'download' ? bytesPerSecond : null,
});
const segment = randomBytes(segmentBytes);
const sha256 = createHash('sha256').update(segment).digest();
const stop = new AbortController();

async function upload(lane: number): Promise<void> {
  for (let i = 0; ; i++) {
    await target.putIfAbsent(`segments/${lane}/${i}`, segment, { sha256 }, stop.signal);
    await store.delete([`segments/${lane}/${i}`], stop.signal);
  }
}

async function download(): Promise<void> {
  for (let i = 0; ; i = (i + 1) % 2)
    await target.get('segments/there', { offset: i * rangeBytes, length: rangeBytes }, stop.signal);
}

function wireBytes(): number {
  const [, received = ''] = /lo:\s*(\d+)/.exec(readFileSync('/proc/net/dev', 'utf8')) ?? [];
  return Number(received);
}

await store.putIfAbsent('segments/there', segment, { sha256 }, stop.signal);
// What is loaded and connected at first takes its time.
await Promise.all(Array.from({ length: inFlight }, () => store.get('segments/there', null, stop.signal)));
const lanes = Array.from({ length: inFlight }, (_, lane) => (direction === 'upload' ? upload(lane) : download()));
const over = Promise.allSettled(lanes);
const samples: { ms: number; bytes: number }[] = [];
const began = performance.now();
while (performance.now() - began < Number(secondsText) * 1000) {
  samples.push({ ms: performance.now() - began, bytes: wireBytes() });
  await sleep(sampleEveryMs);
}
stop.abort();
for (const outcome of await over)
  if (outcome.status === 'rejected' && outcome.reason !== stop.signal.reason) throw outcome.reason;
console.log(JSON.stringify(samples));
