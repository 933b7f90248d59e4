/**
 * The agent beside other programs, beside its own limits, and on an image whose changes are tracked. Tables in Markdown.
 *
 *   npm run bench                       seed, resync, restore: the agent and the others in turns
 *   npm run bench -- limits             each stage alone, and the whole
 *   npm run bench -- sync               a qcow2 with a bitmap: nothing changed, a hundredth changed
 *   npm run bench -- serve              a stored disk read where it is, and a machine that boots from it
 *   npm run bench -- libvirt            a running machine of libvirt: the agent beside virtnbdbackup
 *   npm run bench -- page               all of that: the tables of docs/benchmarks.md
 *   npm run bench -- --short            a small image, restic and kopia only; --record: the ratios that the tests compare with
 *
 *   [--rounds 5] [--source FOLDER | --image FILE] [--only seed,resync] [--compression fastest] [--without kopia] [--json FILE]
 */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { type Arena, describeArena, openArena } from './arena.ts';
import { allContestants, gather } from './contestants/all.ts';
import { bothCompressions } from './contestants/contestant.ts';
import { recordRatios } from './expected-ratios.ts';
import { copyTable } from './libvirt/libvirt-table.ts';
import { type CopyRow, copyNeeds, copyRound, copyVersions } from './libvirt/measure-libvirt.ts';
import { limitTable } from './limits/limit-table.ts';
import { type LimitRound, limitRound } from './limits/measure-limits.ts';
import { describeOthers } from './observe.ts';
import { type RaceOptions, type Row, raceRound, steps } from './race.ts';
import { disturbed, type Ratio, ratiosOf } from './ratios.ts';
import { serveRounds } from './serve/run-serve.ts';
import { shortContestants, shortSource } from './short.ts';
import { type SyncRow, syncNeeds, syncRound } from './sync/measure-sync.ts';
import { syncTable } from './sync/sync-table.ts';
import { notesOf, raceTable } from './table.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string' },
    source: { type: 'string' },
    image: { type: 'string' },
    only: { type: 'string' },
    compression: { type: 'string' },
    without: { type: 'string', multiple: true, default: [] },
    short: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const { short, record } = options;
const roundsMax = Number(options.rounds ?? (short ? 3 : 5));
const compressions = choose(bothCompressions, options.compression ?? (short ? 'fastest' : undefined));
const chosenSteps = choose(steps, options.only);
/** What was measured, as it was measured. */
const raw: { race: Row[]; limits: LimitRound[]; sync: SyncRow[]; serve: object[]; libvirt: CopyRow[] } = {
  race: [],
  limits: [],
  sync: [],
  serve: [],
  libvirt: [],
};

type Part = 'race' | 'limits' | 'sync' | 'serve' | 'libvirt';
interface PartOfPage {
  readonly title: string;
  measure(arena: Arena): Promise<readonly string[]>;
}
const parts: Readonly<Record<Part, PartOfPage>> = {
  race: { title: 'Beside other programs', measure: race },
  limits: { title: 'Beside its own limits', measure: limits },
  sync: { title: 'An image whose changes are tracked', measure: sync },
  serve: { title: 'A stored disk, read where it is', measure: serve },
  libvirt: { title: 'A running machine of libvirt', measure: libvirt },
};
const [what = 'race'] = positionals;
const allParts: readonly Part[] = ['race', 'limits', 'sync', 'serve', 'libvirt'];
const wanted = what === 'page' ? allParts : choose(allParts, what);

await using arena = await openArena({
  source: options.source ?? (short ? shortSource : '/usr'),
  image: options.image ?? null,
});
const conditions = `medians of ${roundsMax} rounds, in parentheses the shortest and the longest`;
print([...describeArena(arena), conditions].map(item));
for (const part of wanted) print([`### ${parts[part].title}`, '', ...(await parts[part].measure(arena))]);
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(raw, null, 1)}\n`);

async function race(arena: Arena): Promise<readonly string[]> {
  const invited = (short ? shortContestants : allContestants).filter(({ name }) => !options.without.includes(name));
  const { present, missing } = await gather(invited);
  const race: RaceOptions = { contestants: present, compressions, steps: chosenSteps };
  for (let round = 1; round <= roundsMax; round++) raw.race.push(...(await raceRound(arena, race, round)));
  const versions = await Promise.all(present.map((contestant) => contestant.version()));
  const named = Object.fromEntries(present.map(({ name }, i) => [name, versions[i] ?? '']));
  if (record) writeDown(ratiosOf(raw.race), named, arena);
  const absent = missing.map((reason) => `not measured: ${reason}`);
  return [
    ...raceTable(raw.race),
    '',
    ...[...versions, ...notesOf(present), ...absent, describeOthers(raw.race)].map(item),
  ];
}

function writeDown(ratios: readonly Ratio[], versions: Readonly<Record<string, string>>, arena: Arena): void {
  recordRatios(ratios, versions);
  const unknown = disturbed(ratios, ratios);
  if (unknown.length > 0) arena.say(`others were busy: recorded without the wall times of ${unknown.join(', ')}`);
}

async function limits(arena: Arena): Promise<readonly string[]> {
  for (let round = 1; round <= roundsMax; round++)
    for (const compression of compressions) raw.limits.push(await limitRound(arena, compression, round));
  const steps = raw.limits.flatMap(({ rows }) => rows);
  return [...limitTable(raw.limits, cpus().length), '', item(describeOthers(steps))];
}

async function sync(arena: Arena): Promise<readonly string[]> {
  const needs = await syncNeeds();
  if (needs !== null) return [`not measured: syncs by a bitmap: ${needs}`];
  for (let round = 1; round <= roundsMax; round++) raw.sync.push(...(await syncRound(arena, round)));
  return [...syncTable(raw.sync), '', item(describeOthers(raw.sync))];
}

async function serve(arena: Arena): Promise<readonly string[]> {
  const { lines, ...measured } = await serveRounds(arena, roundsMax, options.without);
  raw.serve.push(measured);
  return lines;
}

async function libvirt(arena: Arena): Promise<readonly string[]> {
  const needs = await copyNeeds();
  if (needs !== null) return [`not measured: machines of libvirt: ${needs}`];
  for (let round = 1; round <= roundsMax; round++) raw.libvirt.push(...(await copyRound(arena, round)));
  return [...copyTable(raw.libvirt), '', ...[...(await copyVersions()), describeOthers(raw.libvirt)].map(item)];
}

/** All of them, or those of a list with commas. */
function choose<Name extends string>(all: readonly Name[], list: string | undefined): readonly Name[] {
  if (list === undefined) return all;
  const names = list.split(',');
  const unknown = names.filter((name) => !all.some((known) => known === name));
  if (unknown.length > 0) throw new Error(`${unknown.join(', ')}: say ${all.join(', ')}`);
  return all.filter((name) => names.includes(name));
}

function item(line: string): string {
  return `* ${line}`;
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n\n`);
}
