import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { keyIdOf } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import { type Chain, openChain, readPoint, verifyWholeChain } from '../../replica/chain.ts';
import { encodeEntry } from '../../replica/chain-entry.ts';
import type { Birth, RetainedPoint, SegmentLife, Summary } from '../../replica/control.ts';
import { placeControl } from '../../replica/control-object.ts';
import { chainEntryName } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { newTargetMetrics, type TargetMetrics, withMetrics } from '../../storage-targets/with-metrics.ts';
import { openMemoryTarget } from '../fakes/memory-target.ts';
import { machineId, never, noKeyRecord, publish, repositoryId, SmallRepository } from './small-repository.ts';

const requestsMax = 70;

interface Opened {
  readonly repo: OpenRepository;
  readonly chain: Chain;
  readonly requests: number;
}

async function openCounting(repository: SmallRepository): Promise<Opened> {
  const metrics = newTargetMetrics();
  const repo = await repository.open(withMetrics(openMemoryTarget(repository.store), metrics));
  const chain = await openChain(repo, machineId, never);
  if (chain === null) throw new Error('the machine has no chain');
  return { repo, chain, requests: requestsIn(metrics) };
}

function requestsIn(metrics: TargetMetrics): number {
  return Object.values(metrics).reduce((sum, { requests }) => sum + requests, 0);
}

describe('a chain of 350,000 entries', () => {
  const summarised = 349_952;
  const pointSeqs = Array.from({ length: 400 }, (_, i) => summarised - 400 * 64 + i * 64 + 1);
  let repository: SmallRepository;

  /** What 349,952 entries amount to: 400 points, and 30,000 segments of which each point has killed some. */
  function summaryOfOld(): Summary {
    const points: RetainedPoint[] = pointSeqs.map((seq) => ({
      seq,
      timeMs: seq,
      digest: sha256(Uint8Array.of(seq % 251)),
    }));
    const segments: SegmentLife[] = Array.from({ length: 30_000 }, (_, i) => {
      const birth = pointSeqs[i % 300] ?? 0;
      const killed = i % 3 === 0;
      const dead = killed ? 128 : i % 128;
      const death = killed ? (pointSeqs[(i % 300) + 50] ?? 0) : 0;
      const sha = sha256(Uint8Array.of(i % 256));
      return {
        tenure: 1 + Math.floor(i / 100),
        number: 1 + (i % 100),
        size: 8_388_608 + i,
        units: 128,
        dead,
        birth,
        death,
        sha256: sha,
      };
    });
    return {
      tenure: 349_001,
      ownerKeyId: keyIdOf(repository.agent.publicKey),
      hasPublished: true,
      watermark: 12,
      epochs: [{ epoch: 1, keyRecordDigest: noKeyRecord }],
      adopted: [],
      lockGeneration: 0,
      lockUntilMs: 0,
      points,
      segments,
    };
  }

  /** The last summary is written as its writer would have; the entries before it are of no concern to who opens. */
  beforeAll(async () => {
    repository = new SmallRepository();
    const target = openMemoryTarget(repository.store);
    const owner = { repositoryId, machineId, seq: summarised };
    const control = await placeControl(
      target,
      owner,
      false,
      { births: [], deaths: [], summary: summaryOfOld() },
      never,
    );
    const body = { type: 'lock', generation: 1, untilMs: 1 } as const;
    const place = {
      ...owner,
      previous: sha256(new Uint8Array(1)),
      nonce: randomBytes(16),
      timeMs: 1,
      tenure: 349_001,
      trust: 0,
    };
    repository.put(chainEntryName(machineId, summarised), encodeEntry({ ...place, body, control }, repository.agent));
    const tenure = await repository.begin();
    for (let i = 0; i < 40; i++) await publish(tenure);
    for (const seq of pointSeqs.slice(0, 22)) await repository.append({ type: 'prune', points: [seq] });
  });

  it('opens in at most 70 requests when it is as far from its summary as it can be', async () => {
    const { chain, requests } = await openCounting(repository);
    expect(chain.head.seq).toBe(350_015);
    expect(chain.state.points.size).toBe(400 - 22 + 40);
    expect(requests).toBeLessThanOrEqual(requestsMax);
  });

  it('goes on, writes its next summary, and opens in ten requests right after that', async () => {
    await publish(await repository.begin(repository.otherAgent));
    const { chain, requests } = await openCounting(repository);
    expect(chain.head.seq).toBe(350_017);
    expect(chain.state.points.size).toBe(400 - 22 + 41);
    expect(requests).toBeLessThanOrEqual(10);
  });

  it('does not need the entries in between: they are walked by who verifies', async () => {
    const { repo, chain } = await openCounting(repository);
    await expect(verifyWholeChain(repo, chain, never)).rejects.toMatchObject({ code: 'CHAIN_BROKEN' });
  });
});

describe('a chain of 2,000 entries', () => {
  const retained = 150;
  let repository: SmallRepository;

  /** Each publish brings one segment of two units and kills one unit of the last two, as a long life does. */
  beforeAll(async () => {
    repository = new SmallRepository();
    const tenure = await repository.begin();
    while (tenure.head.seq < 2_000) {
      const points = [...tenure.state.points.keys()];
      const surplus = points.length - retained;
      if (surplus > 20) await repository.append({ type: 'prune', points: points.slice(0, surplus) });
      const id = tenure.nextSegment();
      const deaths = [id.number - 2, id.number - 1].filter((number) => number > 0);
      const killed = deaths.map((number) => ({ tenure: id.tenure, number, units: 1 }));
      await publish(tenure, [birthOf(id.tenure, id.number)], killed);
    }
  });

  function birthOf(tenure: number, number: number): Birth {
    return { tenure, number, size: 100, units: 2, sha256: sha256(Uint8Array.of(number % 251)) };
  }

  it('is verified whole, and opens in at most 70 requests to the same state', async () => {
    const { repo, chain, requests } = await openCounting(repository);
    expect(requests).toBeLessThanOrEqual(requestsMax);
    expect(chain.state.points.size).toBeGreaterThanOrEqual(retained);
    expect(chain.state.points.size).toBeLessThanOrEqual(retained + 21);
    expect(await verifyWholeChain(repo, chain, never)).toBe(2_000);
  });

  it('still has its oldest retained point, checked against the digest in the summary', async () => {
    const { repo, chain } = await openCounting(repository);
    const [oldest = 0] = chain.state.points.keys();
    const { body } = await readPoint(repo, chain, oldest, never);
    expect(body.type === 'publish' && new TextDecoder().decode(body.sealedManifest)).toBe(`point ${oldest}`);
  });

  it('keeps segments only while a retained point lies in their life', async () => {
    const { chain } = await openCounting(repository);
    const { segments } = chain.state.summary();
    expect(segments.length).toBeLessThan(retained + 30);
    expect(segments.length).toBeGreaterThan(retained - 5);
  });
});

describe('publishes whose births fill a control object', () => {
  it('cost one request more each to open', async () => {
    const repository = new SmallRepository();
    const tenure = await repository.begin();
    const large = 10;
    for (let i = 0; i < large; i++) {
      const births = Array.from({ length: 2_000 }, () => {
        const { number } = tenure.nextSegment();
        return { tenure: tenure.id, number, size: 8_388_608, units: 128, sha256: new Uint8Array(32).fill(1) };
      });
      await publish(tenure, births);
    }
    const { chain, requests } = await openCounting(repository);
    expect(chain.state.segments.size).toBe(large * 2_000);
    // Descriptor, list of statements, statement, list of entries; then begin and publishes, and a control object each.
    expect(requests).toBe(4 + 1 + 2 * large);
  });
});
