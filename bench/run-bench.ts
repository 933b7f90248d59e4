/**
 * The agent beside restic and kopia: the same image of a file system, the same S3 server, in turns. Prints a table in Markdown.
 *
 *   npm run bench -- [--rounds 5] [--source /usr | --image FILE] [--without kopia]
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openCanaryFolder, removeCanaryFolder } from '../test/canary.ts';
import { minioNeeds, type S3Peer, startMinio } from '../test/peers/s3.ts';
import { peerNeeds } from '../test/peers/server-process.ts';
import { type Compression, type Contestant, failkit, kopia, restic } from './contestants.ts';
import { makeImage } from './make-image.ts';
import { type Measured, median } from './measure.ts';
import { bytesBelow, type Row, tableOf } from './table.ts';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    source: { type: 'string', default: '/usr' },
    image: { type: 'string' },
    without: { type: 'string', multiple: true, default: [] },
  },
});
const compressions: readonly Compression[] = ['fastest', 'off'];
const say = (line: string): void => void process.stderr.write(`${line}\n`);

// The server takes its password from there.
const secrets = openCanaryFolder();
const contestants = await present([failkit, restic, kopia].filter(({ name }) => !options.without.includes(name)));
const folder = mkdtempSync(join(tmpdir(), 'failkit-bench-'));
try {
  // In a folder of its own, for who backs up folders only.
  const image = options.image ?? join(folder, 'image/disk.img');
  if (options.image === undefined) {
    mkdirSync(join(folder, 'image'));
    say(`making an image of ${options.source}…`);
    await makeImage(image, options.source);
  }
  const rows: Row[] = [];
  for (let round = 1; round <= Number(options.rounds); round++)
    for (const compression of compressions)
      for (const contestant of contestants) rows.push(...(await race(contestant, compression, image, round)));
  await report(image, rows);
} finally {
  rmSync(folder, { recursive: true, force: true });
  removeCanaryFolder(secrets);
}

async function present(wanted: readonly Contestant[]): Promise<readonly Contestant[]> {
  const needs = await minioNeeds();
  if (needs !== null) throw new Error(`the benchmark ${needs}`);
  const there: Contestant[] = [];
  for (const contestant of wanted) {
    const missing = contestant === failkit ? null : await peerNeeds(`bench/${contestant.name}`);
    if (missing === null) there.push(contestant);
    else say(`skipped: ${contestant.name}: ${missing}`);
  }
  return there;
}

/** One program from an empty bucket to a restored image, which must be the image. A server of its own each time: nothing is left of the others. */
async function race(
  contestant: Contestant,
  compression: Compression,
  image: string,
  round: number,
): Promise<readonly Row[]> {
  const own = mkdtempSync(join(folder, 'run-'));
  // What a disk takes to write is the same for all; in memory it hides nothing else.
  const restored = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : folder, 'failkit-bench-'));
  await using server = await startMinio();
  try {
    const run = await contestant.open({ ...(await placeAt(server)), folder: own, image }, compression);
    const row = (step: Row['step'], { wallMs, cpuMs }: Measured): Row => {
      say(
        `${round} ${contestant.name} ${compression} ${step}: ${(wallMs / 1000).toFixed(1)} s, CPU ${(cpuMs / 1000).toFixed(1)} s`,
      );
      return { contestant: contestant.name, compression, step, wallMs, cpuMs, storedBytes };
    };
    let storedBytes = 0;
    const seeded = await run.seed();
    storedBytes = bytesBelow(server.folder);
    const rows = [row('seed', seeded), row('resync', await run.resync())];
    const back = await run.restore(restored);
    execFileSync('cmp', [image, back.image]);
    return [...rows, row('restore', back.measured)];
  } finally {
    for (const path of [own, restored]) rmSync(path, { recursive: true, force: true });
  }
}

async function placeAt(server: S3Peer) {
  return {
    endpoint: new URL(server.endpoint).host,
    region: server.region,
    bucket: await server.createBucket(),
    accessKeyId: server.accessKeyId,
    secretAccessKey: server.secretAccessKey.reveal(),
  };
}

async function report(image: string, rows: readonly Row[]): Promise<void> {
  const versions = await Promise.all(contestants.map((contestant) => contestant.version()));
  const { size, blocks } = statSync(image);
  const lines = [
    `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB; Node ${process.version}`,
    `image: ${(size / 2 ** 30).toFixed(2)} GiB, ${((blocks * 512) / 2 ** 30).toFixed(2)} GiB of it in use; median of ${options.rounds}`,
    ...versions,
    '',
    ...tableOf(rows, median),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
  writeFileSync(join(tmpdir(), 'failkit-bench.json'), JSON.stringify(rows, null, 1));
}
