/**
 * What syncs upload, of a disk of 1 TiB whose map is full and fragmented: 200 scattered blocks each, which compress 2 to 3:1. And what a
 * sync of 1,000 blocks takes that begins with nothing in memory, of a map with 2^26 blocks. Prints tables in Markdown.
 *
 *   npm run bench:wire -- [--syncs 500] [--cold-syncs 3] [--cold-blocks 26]
 */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MemoryStore, openMemoryTarget } from '../test/fakes/memory-target.ts';
import { coldSync, prepareColdSync } from '../test/rig/fragmented/cold-sync.ts';
import { allPages, pathsOf } from '../test/rig/fragmented/fragmented-replica.ts';
import { changedBlocks, type ScatteredDiskFields } from '../test/rig/fragmented/scattered-disk.ts';
import { type WireBytes, WireCount } from '../test/rig/fragmented/wire-count.ts';
import { sumOf, wireSyncs } from '../test/rig/fragmented/wire-syncs.ts';
import { ReplicaRig } from '../test/rig/replica-rig.ts';

const { values: options } = parseArgs({
  options: {
    syncs: { type: 'string', default: '500' },
    'cold-syncs': { type: 'string', default: '3' },
    'cold-blocks': { type: 'string', default: '26' },
  },
});
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const blockSize = 65_536;
const kib = (bytes: number): string => (bytes / 1024).toFixed(1);

if (Number(options.syncs) > 0) await wireCost(Number(options.syncs));
if (Number(options['cold-syncs']) > 0) await coldSyncs(Number(options['cold-syncs']), Number(options['cold-blocks']));

async function wireCost(count: number): Promise<void> {
  const disk: ScatteredDiskFields = { label: 'system', blockSize, blockCount: 2 ** 24, changes: 200, seed: 1 };
  const snapshots = Array.from({ length: count }, (_, i) => i + 1);
  const wire = new WireCount(openMemoryTarget(new MemoryStore()));
  await using rig = await ReplicaRig.create(wire.target, { inMemory: true });
  const all: WireBytes[] = [];
  const blocks = snapshots.flatMap((snapshot) => changedBlocks(disk, snapshot));
  for await (const sync of wireSyncs(rig, wire, disk, (map) => pathsOf(map, blocks))) {
    all.push(sync);
    if (all.length === count) break;
  }
  say('| syncs | data KiB | map KiB | pages | framing KiB | of it chain, control KiB | all ÷ data |');
  say('|---|---|---|---|---|---|---|');
  for (let to = count; to > 0; to -= 100) wireRow(all, Math.max(0, to - 100), to);
}

function wireRow(all: readonly WireBytes[], from: number, to: number): void {
  const { data, map, pages, chain, control, total } = sumOf(all.slice(from, to));
  const each = (amount: number): number => amount / (to - from);
  const cells = [
    `${from + 1} to ${to}`,
    kib(each(data)),
    kib(each(map)),
    each(pages).toFixed(0),
    kib(each(total - data - map)),
    `${kib(each(chain))}, ${kib(each(control))}`,
    (total / data).toFixed(4),
  ];
  say(`| ${cells.join(' | ')} |`);
}

async function coldSyncs(count: number, bits: number): Promise<void> {
  const disk: ScatteredDiskFields = { label: 'system', blockSize, blockCount: 2 ** bits, changes: 1000, seed: 2 };
  await using rig = await ReplicaRig.create();
  const map = await prepareColdSync(rig, disk, allPages);
  const machines = join(rig.stateFolder, 'machines');
  const database = join(machines, readdirSync(machines)[0] ?? '', 'state.sqlite');
  say(
    `\n2^${bits} blocks: ${map.pageCount} pages, ${map.segmentCount} segments, state ${(statSync(database).size / 2 ** 30).toFixed(2)} GiB`,
  );
  say('| sync | seconds | CPU seconds | sent MiB | most memory MiB |');
  say('|---|---|---|---|---|');
  for (let snapshot = 1; snapshot <= count; snapshot++) {
    const { wallMs, cpuMs, uploadedBytes, peakBytes } = await coldSync(rig, snapshot);
    const cells = [wallMs / 1000, cpuMs / 1000, uploadedBytes / 2 ** 20, peakBytes / 2 ** 20].map((n) => n.toFixed(1));
    say(`| ${snapshot} | ${cells.join(' | ')} |`);
  }
}
