/** The real servers of an end-to-end test, each behind a proxy that counts and hurts. */
import { type FaultProxy, startFaultProxy } from '../peers/fault-proxy.ts';
import { type KmsPeer, kmsNeeds, startKms } from '../peers/kms.ts';
import { minioNeeds, type S3Peer, startMinio } from '../peers/s3.ts';
import { type BucketView, viewBucket } from './bucket.ts';
import type { SitePeers } from './site.ts';

export interface EndToEndPeers extends AsyncDisposable {
  readonly s3: S3Peer;
  readonly kms: KmsPeer;
  readonly wire: FaultProxy;
  readonly kmsWire: FaultProxy;
  /** A new bucket and a new KMS key, and how a site reaches them. */
  place(): Promise<{ readonly peers: SitePeers; readonly bucket: BucketView }>;
}

/** Null when all is there, else the text of a skipped test. */
export async function endToEndNeeds(): Promise<string | null> {
  return (await minioNeeds()) ?? (await kmsNeeds());
}

export async function startPeers(options: { readonly enforceIam?: boolean } = {}): Promise<EndToEndPeers> {
  await using starting = new AsyncDisposableStack();
  const [s3, kms] = await Promise.all([startMinio(), startKms(options)]);
  starting.use(s3);
  starting.use(kms);
  const wire = starting.use(await startFaultProxy(s3.endpoint));
  const kmsWire = starting.use(await startFaultProxy(kms.endpoint));
  const all = starting.move();
  return {
    s3,
    kms,
    wire,
    kmsWire,
    place: async () => {
      const bucket = await s3.createBucket();
      const keyId = await kms.createKey();
      return {
        peers: { s3, s3Endpoint: wire.endpoint, bucket, kms, kmsEndpoint: kmsWire.endpoint, keyId },
        bucket: viewBucket(s3, bucket),
      };
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}
