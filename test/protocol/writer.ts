import { lockIfDue } from '../../agent/protect/lock-points.ts';
import { sha256 } from '../../crypto/suite.ts';
import { type Chain, checkKnownHead, readPoint } from '../../replica/chain.ts';
import type { Birth } from '../../replica/control.ts';
import { toHex } from '../../replica/encoding.ts';
import { type SegmentId, segmentKey, segmentName } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { Fenced } from '../../replica/put-once.ts';
import { type PublishFields, Tenure, type TenureOptions } from '../../replica/tenure.ts';
import { UnitCount } from '../../replica/unit-count.ts';
import { ObjectNotFound } from '../../storage-targets/errors.ts';
import type { Retention } from '../../storage-targets/with-retention.ts';
import { encodeManifest, parseManifest, type Slots, type Unit } from './truth.ts';
import type { AgentState, World } from './world.ts';

/** An agent: opens the chain, begins a tenure, puts segments and publishes a few times. */

const never = new AbortController().signal;
const slotCount = 8;
const noKeyRecord = new Uint8Array(32);
const constantMs = 1_700_000_000_000;

/** A run of the agent: what one process does between its start and its end. */
interface Run {
  readonly world: World;
  readonly tenure: Tenure;
  readonly name: string;
  readonly agent: AgentState;
  readonly retention: Retention | null;
  base: Slots;
  /** Durable and not yet published: of an adopted tenure. */
  adoptable: readonly Birth[];
  /** Put in this run and left out of the publish that followed. */
  leftovers: readonly Birth[];
}

export async function runAgent(
  world: World,
  repo: OpenRepository,
  name: string,
  agent: AgentState,
  chain: Chain | null,
): Promise<void> {
  if (chain !== null && agent.confirmed !== null) await checkKnownHead(repo, chain, agent.confirmed, never);
  const base = chain === null ? new Map() : await readBase(world, repo, chain);
  const retention = world.retention?.() ?? null;
  const locking = { ...repo, target: world.lockingTarget(repo.target, retention) };
  const tenure = await begin(world, locking, chain, agent);
  const run: Run = {
    ...{ world, tenure, agent, retention },
    name: `${name}/${world.unique()}`,
    base,
    adoptable: await findAdoptable(world, tenure),
    leftovers: [],
  };
  const publishes = 1 + world.random.below(4);
  for (let i = 0; i < publishes; i++) {
    await publishOnce(run);
    if (world.random.chance(0.15)) await tenure.rekey(tenure.state.epoch + 1, noKeyRecord, never);
  }
}

async function readBase(world: World, repo: OpenRepository, chain: Chain): Promise<Slots> {
  const seqs = [...chain.state.points.keys()];
  const seq = world.does('publishes from an old base') ? seqs[0] : seqs.at(-1);
  if (seq === undefined) return new Map();
  const { body } = await readPoint(repo, chain, seq, never);
  return body.type === 'publish' ? parseManifest(body.sealedManifest).slots : new Map();
}

async function begin(world: World, repo: OpenRepository, chain: Chain | null, agent: AgentState): Promise<Tenure> {
  const { random } = world;
  const epoch = Math.max(1, (chain?.state.epoch ?? 0) + (!agent.stuck && random.chance(0.2) ? 1 : 0));
  const adopt = agent.stuck || random.chance(0.75);
  // Two clones that were made from one running host draw the same nonces, so their `begin` entries can be the same bytes.
  const options: TenureOptions & { nonce?: () => Uint8Array } = {
    agent: agent.key,
    mark: { pending: () => undefined, confirmed: (head) => (agent.confirmed = head) },
    now: () => constantMs,
    ...(agent.stuck ? { nonce: () => new Uint8Array(16) } : {}),
  };
  const older = olderTenure(world, chain);
  const fields = { epoch, keyRecordDigest: noKeyRecord, adopt, ...(older === null ? {} : { adoptsTenure: older }) };
  return await Tenure.begin(repo, world.machineId, chain, fields, options, never);
}

function olderTenure(world: World, chain: Chain | null): number | null {
  if (!world.does('adopts any old tenure') || chain === null) return null;
  const begins = world.truth.entries.filter(({ body, seq }) => body.type === 'begin' && seq <= chain.head.seq);
  return world.random.pick(begins).seq;
}

/** Segments that the tenures we adopted put and did not publish. */
async function findAdoptable(world: World, tenure: Tenure): Promise<readonly Birth[]> {
  const found: Birth[] = [];
  for (const { tenure: adopted, watermark } of tenure.state.adopted) {
    const prefix = segmentName(world.machineId, { tenure: adopted, number: 0 }).slice(0, -10);
    for await (const { name } of tenure.repo.target.list(prefix, {}, never)) {
      const id = { tenure: adopted, number: Number(name.slice(-10)) };
      const open = id.number > watermark || world.does('adopts below the watermark');
      if (!open || tenure.state.segments.has(segmentKey(id))) continue;
      const birth = await readBirth(world, tenure, id);
      if (birth !== null) found.push(birth);
    }
  }
  return found;
}

/** Null when it has gone: then another agent has begun in the meantime, and we shall be fenced. */
async function readBirth(world: World, tenure: Tenure, id: SegmentId): Promise<Birth | null> {
  try {
    return birthOf(id, await tenure.repo.target.get(segmentName(world.machineId, id), null, never));
  } catch (error) {
    if (error instanceof ObjectNotFound) return null;
    throw error;
  }
}

function birthOf(id: SegmentId, bytes: Uint8Array): Birth {
  return { ...id, size: bytes.length, units: bytes[0] ?? 0, sha256: sha256(bytes) };
}

async function publishOnce(run: Run): Promise<void> {
  const { world, tenure } = run;
  const early = world.does('publishes before its segments are put');
  const fresh = newSegments(run);
  if (!early) await putAll(run, fresh);
  const births = fresh.map(({ id, bytes }) => birthOf(id, bytes));
  const usable = [...births, ...run.adoptable, ...run.leftovers];
  const next = rewrite(run, usable);
  const count = countUnits(run.base, next, usable);
  const attempt = `${run.name}-${world.unique()}`;
  await lock(run, count.births());
  await publishAs(run, attempt, {
    epoch: tenure.state.epoch,
    births: count.births(),
    deaths: count.deaths(),
    immutableUntilMs: run.retention === null ? 0 : tenure.state.lockUntilMs,
    sealManifest: () => encodeManifest(attempt, next),
  });
  if (early) await putAll(run, fresh);
  if (count.births().some((birth) => birth.tenure !== tenure.id)) world.counters.adoptions++;
  run.base = next;
  const unused = usable.filter((birth) => !count.births().includes(birth));
  run.adoptable = world.does('adopts after its first publish') ? unused.filter((b) => b.tenure !== tenure.id) : [];
  run.leftovers = world.does('uses segments below its watermark') ? unused.filter((b) => b.tenure === tenure.id) : [];
}

async function lock({ world, tenure, agent, retention }: Run, births: readonly Birth[]): Promise<void> {
  const memory = {
    lockedUntilMs: () => agent.lockedUntilMs,
    keepLock: (_: string, untilMs: number) => {
      agent.lockedUntilMs = untilMs;
      world.counters.locks++;
    },
  };
  const failure = await lockIfDue(retention, tenure, births, memory, never);
  // Something was pruned and swept meanwhile: the point is published without, and the next run locks.
  if (failure !== null && !(failure instanceof ObjectNotFound)) throw failure;
}

async function publishAs({ world, tenure, name }: Run, attempt: string, fields: PublishFields): Promise<void> {
  try {
    const entry = await tenure.publish(fields, never);
    world.published(entry.seq, name);
  } catch (error) {
    if (error instanceof Fenced) world.fencedAttempts.add(attempt);
    throw error;
  }
}

interface NewSegment {
  readonly id: SegmentId;
  readonly bytes: Uint8Array;
}

function newSegments({ world, tenure, name }: Run): readonly NewSegment[] {
  return Array.from({ length: world.random.below(4) }, () => {
    const units = 1 + world.random.below(3);
    const content = new TextEncoder().encode(`${name}:${world.unique()}`);
    return { id: tenure.nextSegment(), bytes: Uint8Array.of(units, ...content) };
  });
}

async function putAll({ tenure }: Run, segments: readonly NewSegment[]): Promise<void> {
  await Promise.all(segments.map(({ id, bytes }) => tenure.putSegment(id, bytes, sha256(bytes), never)));
}

/** The next point: some slots cleared, some overwritten by units of the new segments, many of whose units stay unused. */
function rewrite({ world, base }: Run, usable: readonly Birth[]): Slots {
  const { random } = world;
  const next = new Map([...base].filter(() => random.chance(0.9)));
  for (const birth of usable.filter(() => random.chance(0.8))) {
    for (let unit = 0; unit < birth.units; unit++) {
      if (!random.chance(0.6)) continue;
      const { tenure, number } = birth;
      next.set(random.below(slotCount), { tenure, number, unit, sha256: toHex(birth.sha256) });
    }
  }
  return next;
}

function countUnits(base: Slots, next: Slots, usable: readonly Birth[]): UnitCount {
  const count = new UnitCount();
  for (const birth of usable) count.born(birth);
  for (let slot = 0; slot < slotCount; slot++) {
    const before = base.get(slot);
    const after = next.get(slot);
    if (before !== undefined && after !== undefined && sameUnit(before, after)) continue;
    if (before !== undefined) count.drop(before);
    if (after !== undefined) count.use(after);
  }
  return count;
}

function sameUnit(a: Unit, b: Unit): boolean {
  return segmentKey(a) === segmentKey(b) && a.unit === b.unit;
}
