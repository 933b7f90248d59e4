import type { KeyProvider } from '../crypto/key-provider.ts';
import { type Chain, openChain, ReplicaNotFound, readPoint } from '../replica/chain.ts';
import type { Damage } from '../replica/damage.ts';
import { toHex } from '../replica/encoding.ts';
import { KeyRing, type KeySource } from '../replica/key-ring.ts';
import { type Manifest, openManifest } from '../replica/manifest.ts';
import { segmentKey } from '../replica/names.ts';
import type { OpenRepository } from '../replica/open-repository.ts';
import type { PrunedPoints } from '../replica/pruned-points.ts';
import { openChainSalvage, type SalvagedChain } from '../replica/salvage-chain.ts';
import type { SalvagedRepository } from '../replica/salvage-repository.ts';

/** Opening what a bucket holds of a machine: its chain, its recovery points, their manifests. */

/** A machine's replica, with the keys to open it. Dispose it to zero them. */
export class OpenReplica implements Disposable {
  readonly repo: OpenRepository;
  readonly chain: Chain;
  readonly keys: KeyRing;
  /** What had to be read around; empty for a replica that was opened whole. */
  readonly damage: readonly Damage[];
  /** Retained points that are lost with their chain entry, ascending. */
  readonly lostPoints: readonly number[];

  private constructor(
    repo: OpenRepository,
    chain: Chain,
    keys: KeyRing,
    salvaged: { readonly damage: readonly Damage[]; readonly lostPoints: readonly number[] },
  ) {
    this.repo = repo;
    this.chain = chain;
    this.keys = keys;
    this.damage = salvaged.damage;
    this.lostPoints = salvaged.lostPoints;
  }

  /**
   * `providers` are asked in this order to unwrap data keys; nothing is unwrapped before it is needed. Any damage to the chain is
   * an error, unless `salvage` asks for the points whose own entries are good; a `repo` may be salvaged, too.
   */
  static async open(
    repo: OpenRepository | SalvagedRepository,
    machineId: Uint8Array,
    providers: readonly KeyProvider[],
    signal: AbortSignal,
    { salvage = false }: { readonly salvage?: boolean } = {},
  ): Promise<OpenReplica> {
    const chain = salvage
      ? await openChainSalvage(repo, machineId, signal)
      : wholeChain(await openChain(repo, machineId, signal));
    if (chain === null) {
      throw new ReplicaNotFound(`${repo.target.description} holds no replica of machine ${toHex(machineId)}`);
    }
    const damage = [...('damage' in repo ? repo.damage : []), ...chain.damage];
    const records = chain.damage.length > 0 ? 'unnamed-epochs' : 'later-revisions';
    const keys = new KeyRing(repo, chain, providers, salvage ? records : 'nothing');
    return new OpenReplica(repo, chain, keys, { ...chain, damage });
  }

  /** The same replica, read through another target; it shares the keys, and need not be disposed. */
  withRepository(repo: OpenRepository): OpenReplica {
    return new OpenReplica(repo, this.chain, this.keys, this);
  }

  /** Numbers of the retained recovery points, oldest first, and of pruned ones that were readmitted. */
  get points(): readonly number[] {
    return [...this.chain.state.points.keys()];
  }

  /** From now on these are read as if nobody had pruned them. The chain is then no longer one to write after. */
  readmit({ points, segments }: PrunedPoints): void {
    const { state } = this.chain;
    const all = [...state.points.values(), ...points].sort((a, b) => a.seq - b.seq);
    state.points.clear();
    for (const { seq, timeMs, digest } of all) state.points.set(seq, { seq, timeMs, digest });
    for (const life of segments) if (!state.segments.has(segmentKey(life))) state.segments.put(life);
  }

  async openPoint(point: number, signal: AbortSignal, keys: KeySource = this.keys): Promise<OpenPoint> {
    const entry = await readPoint(this.repo, this.chain, point, signal);
    if (entry.body.type !== 'publish') throw new ReplicaNotFound(`entry ${point} is no recovery point`);
    const { key, context } = await keys.epoch(entry.body.epoch, signal);
    const place = { context, seq: point, tenure: entry.tenure };
    return { point, publishedMs: entry.timeMs, manifest: openManifest(key, place, entry.body.sealedManifest) };
  }

  [Symbol.dispose](): void {
    this.keys[Symbol.dispose]();
  }
}

function wholeChain(chain: Chain | null): SalvagedChain | null {
  return chain === null ? null : { ...chain, damage: [], lostPoints: [] };
}

export interface OpenPoint {
  readonly point: number;
  readonly publishedMs: number;
  readonly manifest: Manifest;
}
