import { createKeyFile, readKeyFile } from './key-file.ts';
import { SigningKey } from './signing.ts';

/** Makes a key and its PKCS#8 PEM file (mode 0600, durable). Throws KeyFileUnusable if the name is taken. */
export async function createSigningKeyFile(path: string): Promise<SigningKey> {
  const key = SigningKey.generate();
  const pem = key.exportPem();
  try {
    await createKeyFile(path, pem);
  } finally {
    pem.fill(0);
  }
  return key;
}

/** Throws KeyFileUnusable when the file is missing, open to others, or no private key of a known algorithm. */
export async function loadSigningKeyFile(path: string): Promise<SigningKey> {
  const pem = await readKeyFile(path);
  try {
    return SigningKey.fromPem(pem, `key file ${path}`);
  } finally {
    pem.fill(0);
  }
}
