import { afterAll, beforeAll, describe } from 'vitest';
import { openS3Target } from '../../storage-targets/s3.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { type StorageTargetSubject, storageTargetContract } from '../contract/storage-target.ts';
import {
  minioNeeds,
  motoNeeds,
  type S3Peer,
  s3Options,
  startMinio,
  startMoto,
  startVersityGw,
  versityGwNeeds,
} from '../peers/s3.ts';

interface Server {
  readonly name: string;
  readonly needs: string | null;
  start(): Promise<S3Peer>;
  readonly traits: Omit<StorageTargetSubject, 'name' | 'open'>;
}

const servers: readonly Server[] = [
  {
    name: 'versitygw',
    needs: await versityGwNeeds(),
    start: () => startVersityGw(),
    traits: { lacks: { atomicPuts: true, cleanRefusal: true, longestLock: true } },
  },
  { name: 'minio', needs: await minioNeeds(), start: startMinio, traits: {} },
  {
    name: 'moto',
    needs: await motoNeeds(),
    start: startMoto,
    traits: { lacks: { atomicPuts: true, checksumCheck: true, longestLock: true } },
  },
];

describe.each(servers)('S3 at $name', ({ needs, start, traits }) => {
  let peer: S3Peer;
  beforeAll(async () => {
    if (needs === null) peer = await start();
  });
  afterAll(() => peer?.stop());

  describe.skipIf(needs !== null)(needs ?? 'contract', () => {
    storageTargetContract({
      ...traits,
      name: 'a bucket',
      open: async (options) => openS3Target(s3Options(peer, await peer.createBucket(options))),
    });
    storageTargetContract({
      ...traits,
      name: 'a bucket with every wrapper around it',
      open: async (options) =>
        wrapTarget(await openS3Target(s3Options(peer, await peer.createBucket(options))), {
          inFlightMax: 16,
          uploadBytesPerSecond: 1e9,
          downloadBytesPerSecond: 1e9,
        }).target,
    });
  });
});
