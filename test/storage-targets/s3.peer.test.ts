import { afterAll, beforeAll, describe } from 'vitest';
import { openS3Target } from '../../storage-targets/s3.ts';
import { type StorageTargetSubject, storageTargetContract } from '../contract/storage-target.ts';
import {
  minioNeeds,
  motoNeeds,
  type S3Peer,
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
    traits: { lacks: { atomicPuts: true, cleanRefusal: true } },
  },
  { name: 'minio', needs: await minioNeeds(), start: startMinio, traits: {} },
  { name: 'moto', needs: await motoNeeds(), start: startMoto, traits: { lacks: { checksumCheck: true } } },
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
      open: async (options) =>
        openS3Target({
          bucket: await peer.createBucket(options),
          prefix: 'failkit',
          region: peer.region,
          endpoint: peer.endpoint,
          pathStyle: true,
          credentials: { kind: 'static', accessKeyId: peer.accessKeyId, secretAccessKey: peer.secretAccessKey },
        }),
    });
  });
});
