/** A look into the bucket from outside, as its owner or an auditor has it. */
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import type { S3Peer } from '../peers/s3.ts';

export interface BucketView extends Disposable {
  readonly client: S3Client;
  keys(): Promise<string[]>;
  read(key: string): Promise<Uint8Array>;
  write(key: string, bytes: Uint8Array): Promise<void>;
  remove(key: string): Promise<void>;
}

/** Only for servers without TLS. */
export function viewBucket(peer: S3Peer, bucket: string): BucketView {
  const client = new S3Client({
    endpoint: peer.endpoint,
    region: peer.region,
    forcePathStyle: true,
    credentials: { accessKeyId: peer.accessKeyId, secretAccessKey: peer.secretAccessKey.reveal() },
  });
  const at = (Key: string) => ({ Bucket: bucket, Key });
  return {
    client,
    keys: async () => {
      const found: string[] = [];
      let from: string | undefined;
      do {
        const page = await client.send(
          new ListObjectsV2Command({ Bucket: bucket, ...(from !== undefined && { ContinuationToken: from }) }),
        );
        found.push(...(page.Contents ?? []).map(({ Key = '' }) => Key));
        from = page.NextContinuationToken;
      } while (from !== undefined);
      return found;
    },
    read: async (key) => {
      const { Body } = await client.send(new GetObjectCommand(at(key)));
      if (Body === undefined) throw new Error(`${key} came without a body`);
      return await Body.transformToByteArray();
    },
    write: async (key, bytes) => void (await client.send(new PutObjectCommand({ ...at(key), Body: bytes }))),
    remove: async (key) => void (await client.send(new DeleteObjectCommand(at(key)))),
    [Symbol.dispose]: () => client.destroy(),
  };
}
