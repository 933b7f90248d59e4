import type { KeyProvider } from '../crypto/key-provider.ts';
import { type Chain, openChain, ReplicaNotFound, readPoint } from '../replica/chain.ts';
import { toHex } from '../replica/encoding.ts';
import { KeyRing } from '../replica/key-ring.ts';
import { type Manifest, openManifest } from '../replica/manifest.ts';
import type { OpenRepository } from '../replica/open-repository.ts';

/** Opening what a bucket holds of a machine: its chain, its recovery points, their manifests. */

/** A machine's replica, with the keys to open it. Dispose it to zero them. */
export class OpenReplica implements Disposable {
  readonly repo: OpenRepository;
  readonly chain: Chain;
  readonly keys: KeyRing;

  private constructor(repo: OpenRepository, chain: Chain, keys: KeyRing) {
    this.repo = repo;
    this.chain = chain;
    this.keys = keys;
  }

  /** `providers` are asked in this order to unwrap data keys; nothing is unwrapped before it is needed. */
  static async open(
    repo: OpenRepository,
    machineId: Uint8Array,
    providers: readonly KeyProvider[],
    signal: AbortSignal,
  ): Promise<OpenReplica> {
    const chain = await openChain(repo, machineId, signal);
    if (chain === null) {
      throw new ReplicaNotFound(`${repo.target.description} holds no replica of machine ${toHex(machineId)}`);
    }
    return new OpenReplica(repo, chain, new KeyRing(repo, chain, providers));
  }

  /** Numbers of the retained recovery points, oldest first. */
  get points(): readonly number[] {
    return [...this.chain.state.points.keys()];
  }

  async openPoint(point: number, signal: AbortSignal): Promise<OpenPoint> {
    const entry = await readPoint(this.repo, this.chain, point, signal);
    if (entry.body.type !== 'publish') throw new ReplicaNotFound(`entry ${point} is no recovery point`);
    const { key, context } = await this.keys.epoch(entry.body.epoch, signal);
    const place = { context, seq: point, tenure: entry.tenure };
    return { point, publishedMs: entry.timeMs, manifest: openManifest(key, place, entry.body.sealedManifest) };
  }

  [Symbol.dispose](): void {
    this.keys[Symbol.dispose]();
  }
}

export interface OpenPoint {
  readonly point: number;
  readonly publishedMs: number;
  readonly manifest: Manifest;
}
