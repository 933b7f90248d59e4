import type { ViolationKind } from './truth.ts';
import type { Edit } from './variants.ts';
import type { Misdeed } from './world.ts';

/** A rule that is broken on purpose, in the product's text or by an actor, and what must come to light. */
export interface Mutant {
  readonly rule: string;
  readonly name: string;
  readonly edits?: readonly Edit[];
  readonly misdeeds?: readonly Misdeed[];
  /** The harm, or the guard that stops it, is one of these. */
  readonly shows: readonly ViolationKind[];
}

const state = 'replica/chain-state.ts';
const tenure = 'replica/tenure.ts';
const garbage = 'replica/garbage.ts';
const copying = 'replica/copy-replica.ts';
const locking = 'replica/lock-replica.ts';
const locks = 'agent/protect/lock-points.ts';

const fence = 'if (foreign !== undefined || !isOurs) {';
const ownBirths = 'if (tenure === this.tenure) return number > this.watermark && number <= watermark;';
const adoptedBirths = 'return adopted !== undefined && number > adopted.watermark;';
const ownersOnly = 'if (ownersOnly && !sameBytes(entry.signerKeyId, this.ownerKeyId)) {';

const anyBirths: Edit = { file: state, find: adoptedBirths, replace: 'return true;' };

export const mutants: readonly Mutant[] = [
  {
    rule: 'R1',
    name: 'a writer that lost the race takes the next number',
    edits: [
      {
        file: tenure,
        find: '      await this.#rebase(before, signal);',
        replace: '      this.#chain.head = { seq: this.#chain.head.seq + 1, digest: this.#chain.head.digest };',
      },
      { file: tenure, find: '  #chain: { state: ChainState; head: ChainHead };', replace: '  #chain;' },
    ],
    shows: ['chain torn', 'chain refused'],
  },
  {
    rule: 'R1',
    name: 'a name that is taken counts as put',
    edits: [
      {
        file: 'replica/put-once.ts',
        find: 'return sameBytes(await target.get(name, null, signal), bytes);',
        replace: 'return true;',
      },
    ],
    shows: ['two publishers of one entry', 'chain torn', 'segment lost', 'segment altered'],
  },
  {
    rule: 'R2',
    name: 'nobody is fenced: a writer goes on after somebody else’s begin',
    edits: [
      { file: tenure, find: fence, replace: 'if (foreign === undefined && Number.isNaN(ours) && isOurs) {' },
      { file: state, find: ownBirths, replace: 'if (tenure === this.tenure) return true;' },
      { file: state, find: ownersOnly, replace: 'if (ownersOnly && entry.seq < 0) {' },
      anyBirths,
    ],
    shows: ['fenced writer published'],
  },
  {
    rule: 'R3',
    name: 'a publish starts from an older point',
    misdeeds: ['publishes from an old base'],
    shows: ['segment lost', 'dead count', 'chain refused'],
  },
  {
    rule: 'R4',
    name: 'a writer goes on after a publish of its own tenure (its clone’s)',
    edits: [{ file: tenure, find: fence, replace: 'if (chain.state.tenure !== before.tenure) {' }],
    shows: ['segment lost', 'dead count', 'chain refused'],
  },
  {
    rule: 'R5',
    name: 'the newest point is pruned',
    edits: [{ file: state, find: 'if (seq === this.newestPoint?.seq) throw', replace: 'if (seq === 0) throw' }],
    misdeeds: ['prunes the newest point'],
    shows: ['segment lost', 'dead count'],
  },
  {
    rule: 'R5',
    name: 'points are dropped without an entry',
    edits: [
      { file: garbage, find: '...chain.state.points.keys(),', replace: '...[...chain.state.points.keys()].slice(-1),' },
    ],
    shows: ['segment lost'],
  },
  {
    rule: 'R6',
    name: 'the open tenure is swept',
    edits: [
      {
        file: state,
        find: 'if (id.tenure === this.tenure) return id.number > this.watermark;',
        replace: 'if (id.tenure === this.tenure) return false;',
      },
    ],
    shows: ['segment lost'],
  },
  {
    rule: 'R6',
    name: 'a tenure that began after the chain was read is swept',
    edits: [
      {
        file: state,
        find: 'if (id.tenure > this.tenure) return true;',
        replace: 'if (id.tenure > this.tenure) return false;',
      },
    ],
    shows: ['segment lost'],
  },
  {
    rule: 'R6',
    name: 'adopted tenures are swept',
    edits: [
      {
        file: state,
        find: 'return this.adopted.some(({ tenure, watermark }) => tenure === id.tenure && id.number > watermark);',
        replace: 'return false;',
      },
    ],
    shows: ['segment lost'],
  },
  {
    rule: 'R6',
    name: 'control objects are swept while entries name them',
    edits: [
      {
        file: garbage,
        find: 'if (name !== null) controls.add(name);',
        replace: 'if (name === null) controls.clear();',
      },
    ],
    shows: ['error', 'chain refused'],
  },
  {
    rule: 'R6',
    name: 'a segment is taken for dead one point too early',
    edits: [{ file: state, find: 'first.seq < life.death;', replace: 'first.seq + 1 < life.death;' }],
    shows: ['segment lost'],
  },
  {
    rule: 'R6',
    name: 'a segment is kept one point too long',
    edits: [{ file: state, find: 'first.seq < life.death;', replace: 'first.seq <= life.death;' }],
    shows: ['garbage kept'],
  },
  {
    rule: 'R6',
    name: 'units that a birth brings unused are not counted',
    edits: [
      {
        file: 'replica/unit-count.ts',
        find: 'return [...unused, ...dropped]',
        replace: 'return [...dropped, ...unused.slice(0, 0)]',
      },
    ],
    shows: ['dead count'],
  },
  {
    rule: 'R6',
    name: 'a summary forgets what is adopted',
    edits: [{ file: state, find: '      adopted: this.adopted,\n', replace: '      adopted: [],\n' }],
    shows: ['segment lost', 'chain refused'],
  },
  {
    rule: 'R6',
    name: 'a summary forgets the watermark',
    edits: [{ file: state, find: '      watermark: this.watermark,\n', replace: '      watermark: 0,\n' }],
    shows: ['segment lost', 'chain refused'],
  },
  {
    rule: 'R7',
    name: 'any old tenure is adopted',
    edits: [
      {
        file: tenure,
        find: 'fields.adopt && chain !== null ? chain.state.tenure : null',
        replace: '(fields as { adoptsTenure?: number }).adoptsTenure ?? null',
      },
      {
        file: state,
        find: 'if (adopts !== null && (adopts === 0 || adopts !== this.tenure))',
        replace: 'if (adopts === 0)',
      },
    ],
    misdeeds: ['adopts any old tenure'],
    shows: ['segment lost'],
  },
  {
    rule: 'R7',
    name: 'adopted segments are used after the first publish',
    edits: [anyBirths],
    misdeeds: ['adopts after its first publish'],
    shows: ['segment lost'],
  },
  {
    rule: 'R7',
    name: 'an adopter ignores the watermark',
    edits: [{ file: state, find: adoptedBirths, replace: 'return adopted !== undefined;' }],
    misdeeds: ['adopts below the watermark'],
    shows: ['segment lost'],
  },
  {
    rule: 'R7',
    name: 'a begin forgets the watermark of the tenure that it adopts',
    edits: [
      {
        file: state,
        find: '{ tenure: adopts, watermark: this.watermark }',
        replace: '{ tenure: adopts, watermark: 0 }',
      },
    ],
    shows: ['segment lost', 'chain refused'],
  },
  {
    rule: 'watermark',
    name: 'a writer uses what it put before its last publish',
    edits: [{ file: state, find: ownBirths, replace: 'if (tenure === this.tenure) return true;' }],
    misdeeds: ['uses segments below its watermark'],
    shows: ['segment lost'],
  },
  {
    rule: 'R8',
    name: 'a reader pins and does not look again',
    misdeeds: ['reads without looking again'],
    shows: ['reader lost a segment'],
  },
  {
    rule: 'R8',
    name: 'a sweeper ignores pins',
    edits: [{ file: garbage, find: '.map(({ point }) => point),', replace: '.map(() => 0),' }],
    shows: ['reader lost a segment'],
  },
  {
    rule: 'R8',
    name: 'a sweeper lists the pins before it reads the chain',
    edits: [
      {
        file: garbage,
        find: '  const chain = await openChain(repo, machineId, signal);',
        replace: `  const early = await readPins(target, machineId, signal);
  for (let pause = 0; pause < 20; pause++) await target.now(signal);
  const chain = await openChain(repo, machineId, signal);`,
      },
      {
        file: garbage,
        find: 'const pins = await readPins(target, machineId, signal);',
        replace: 'const pins = early;',
      },
    ],
    shows: ['reader lost a segment'],
  },
  {
    rule: 'R8',
    name: 'a sweeper forgets what only pinned points need',
    edits: [{ file: garbage, find: 'held.add(segmentKey(life));', replace: 'held.delete(segmentKey(life));' }],
    shows: ['reader lost a segment'],
  },
  {
    rule: 'R9',
    name: 'the entry comes before its segments',
    misdeeds: ['publishes before its segments are put'],
    shows: ['segment lost'],
  },
  {
    rule: 'P6',
    name: 'a segment whose name is taken gets the next number',
    edits: [
      {
        file: 'replica/put-once.ts',
        find: '  if (await putOrCompare(target, name, bytes, sha256, signal)) return;',
        replace: `  const after = (taken: string) => taken.replace(/\\d{10}$/, (n) => String(Number(n) + 1).padStart(10, '0'));
  for (let free = name, tries = 0; tries < 9; free = after(free), tries++)
    if (await putOrCompare(target, free, bytes, sha256, signal)) return;`,
      },
    ],
    shows: ['segment altered'],
  },
  {
    rule: 'lock',
    name: 'a lock entry comes without any lock',
    edits: [{ file: locks, find: '  await lockAll(tenure, births, until, signal);\n', replace: '' }],
    shows: ['not locked'],
  },
  {
    rule: 'lock',
    name: 'only what the newest publish brought is locked again',
    edits: [
      {
        file: locking,
        find: 'if (isNeeded(life, points)) yield',
        replace: 'if (isNeeded(life, points) && life.birth === points.at(-1)?.seq) yield',
      },
    ],
    shows: ['not locked'],
  },
  {
    rule: 'lock',
    name: 'a run forgets to lock again what it adopts',
    edits: [{ file: locking, find: 'for (const birth of births)', replace: 'for (const birth of births.slice(0, 0))' }],
    shows: ['not locked'],
  },
  {
    rule: 'floor',
    name: 'a sweeper ignores the floor of the root key',
    edits: [
      { file: garbage, find: '    ...(await underTheFloor(repo, machineId, nowMs, signal)).keys(),\n', replace: '' },
    ],
    shows: ['segment lost'],
  },
  {
    rule: 'copy',
    name: 'the entries are copied before the segments',
    edits: [
      {
        file: copying,
        find: '      await copySegments(chain, from.target, to, progress, signal);\n',
        replace:
          '      await copyEntries(chain, from, to, signal);\n      await copySegments(chain, from.target, to, progress, signal);\n',
      },
    ],
    shows: ['copy lost a segment'],
  },
  {
    rule: 'copy',
    name: 'a copier that finds segments there takes all of them to be there',
    edits: [
      {
        file: copying,
        find: 'if (sizes.get(segmentName(machineId, life)) === life.size)',
        replace: 'if (sizes.size > 0)',
      },
    ],
    shows: ['copy lost a segment'],
  },
];
